"""Writing a bundle: events, their proof and the signed head, in one file for a third party.

`verifier` reads it, and says what the members are.
"""

from __future__ import annotations

import hashlib
import zipfile
from typing import IO, TYPE_CHECKING, Any

from tracker.evidence import note, report
from tracker.evidence.contents import DATA, USER
from tracker.evidence.tree import Tree, TreeError, encode_hashes
from tracker.evidence.verifier import (
    BUNDLE,
    CHECKPOINT,
    EVENTS,
    LARGEST,
    MANIFEST,
    ORIGIN,
    PROOF,
    REMOVALS,
    Checkpoint,
    NotProvenError,
    canonical,
    commit_data,
    commit_user,
    halves,
    leaf_hash,
    parse_checkpoint,
    read_event,
    root_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker.evidence.contents import Contents
    from tracker.evidence.keys import Signer
    from tracker.evidence.tree import Source

_FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same events give the same bytes


class BundleError(Exception):
    """No bundle can be made of these events; the message says why."""


def write(
    file: IO[bytes], contents: Contents, source: Source, signer: tuple[str, Signer] | None = None
) -> None:
    """Write a bundle.

    Args:
        file: Where to; it need not be seekable.
        contents: What goes in.
        source: The tree's digests and tiles.
        signer: Name and key by which the manifest is signed: the outbox's origin and the device's
            key, or a witness's. Without one, nobody vouches for the report.

    Raises:
        BundleError: if there is no event, one is not under the head, one was changed, or it would
            be larger than the verifier reads.
        TreeError: if digests are missing that the proof needs.
    """
    try:
        members = _members(contents, source, signer)
    except NotProvenError as error:
        raise BundleError(str(error)) from error
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _FIRST_ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


def _members(
    contents: Contents, source: Source, signer: tuple[str, Signer] | None
) -> dict[str, bytes]:
    head = parse_checkpoint(contents.head.note.encode())
    lines = [_line(each, contents.withhold) for each in contents.events]
    if not any("type" in line for line in lines):
        raise BundleError("there is no event to show")
    if contents.complete:
        lines = _with_digests(lines, contents.selection, source)
    explaining = [_line(each, contents.withhold - {DATA}) for each in contents.removals]
    members = {
        report.NAME: report.render(contents, head, lines, explaining).encode(),
        EVENTS: _json_lines(lines),
        PROOF: canonical(_proof(contents, head, [*lines, *explaining], source)),
        CHECKPOINT: contents.head.note.encode(),
    }
    if explaining:
        members[REMOVALS] = _json_lines(explaining)
    if contents.keys:
        members["keys.json"] = canonical({"keys": [str(key) for key in contents.keys]})
    for each in (contents.head, *contents.older):
        size = parse_checkpoint(each.note.encode()).size
        if each is not contents.head:
            members[f"heads/{size}.txt"] = each.note.encode()
        if each.timestamp is not None:
            members[f"timestamps/{size}.tsr"] = each.timestamp
    members[MANIFEST] = _manifest(head, members, signer)
    if sum(map(len, members.values())) > LARGEST:
        raise BundleError(f"it would have more than {LARGEST >> 20} MiB; select fewer events")
    return members


def _line(event: Mapping[str, Any], withhold: Iterable[str]) -> dict[str, Any]:
    """Return an event as it stands in a bundle: without what its digest makes superfluous."""
    line = {name: value for name, value in event.items() if name not in ("digest", "chain")}
    digest = event.get("digest")
    if "salt" not in line and "sealed" not in line:
        if {*withhold} - {USER} or (withhold and event["user_id"] is not None):
            # A digest of version 1 shows all or nothing.
            return {"seq": event["seq"], "digest": digest}
        if event["data"] == {"erased": True}:
            line["digest"] = digest
    if digest is not None and read_event(line).digest.hex() != digest:
        raise BundleError(f"the event of seq {event['seq']} was changed after it was stored")
    return _withhold(line, withhold) if "salt" in line else line


def _withhold(line: dict[str, Any], parts: Iterable[str]) -> dict[str, Any]:
    if not parts:
        return line
    user_salt, data_salt = halves(bytes.fromhex(line.pop("salt")))
    if USER in parts:
        line["user_sealed"] = commit_user(user_salt, line.pop("user_id")).hex()
    else:
        line["user_salt"] = user_salt.hex()
    if DATA in parts:
        line["data_sealed"] = commit_data(data_salt, line.pop("data")).hex()
    else:
        line["data_salt"] = data_salt.hex()
    return line


def _with_digests(
    lines: list[dict[str, Any]], selection: Mapping[str, Any], source: Source
) -> list[dict[str, Any]]:
    """Return the lines and, for each number between them, its digest."""
    known = {line["seq"]: line for line in lines}
    first = selection.get("first_seq", lines[0]["seq"])
    last = selection.get("last_seq", lines[-1]["seq"])
    found = {seq: {"seq": seq, "digest": raw.hex()} for seq, raw in source.digests(first, last)}
    missing = next((seq for seq in range(first, last + 1) if seq not in found | known), None)
    if missing is not None:
        raise TreeError(f"the digest of seq {missing} is missing")
    return [known.get(seq) or found[seq] for seq in range(first, last + 1)]


def _proof(
    contents: Contents, head: Checkpoint, lines: Sequence[Mapping[str, Any]], source: Source
) -> dict[str, Any]:
    beyond = [line["seq"] for line in lines if line["seq"] > head.size]
    if beyond:
        raise BundleError(f"the head covers seq 1 to {head.size}, not yet {beyond[0]}")
    tree = Tree(source, head.size)
    leaves = {line["seq"] - 1: leaf_hash(read_event(line).digest) for line in lines}
    cover = tree.cover(line["seq"] for line in lines)
    if root_of(head.size, leaves, cover) != head.root:
        raise BundleError("the events are not those under the head")
    sizes = [parse_checkpoint(each.note.encode()).size for each in contents.older]
    return {
        "version": 1,
        "size": head.size,
        "selection": dict(contents.selection),
        "complete": contents.complete,
        "hashes": encode_hashes(cover),
        "consistency": {str(size): encode_hashes(tree.consistency(size)) for size in sizes},
    }


def _manifest(
    head: Checkpoint, members: Mapping[str, bytes], signer: tuple[str, Signer] | None
) -> bytes:
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items()
    ]
    text = f"{BUNDLE}{head.origin.removeprefix(ORIGIN)}\n" + "".join(lines)
    if signer is None:
        return text.encode()
    name, key = signer
    return note.signed(text, [note.signature(text, name, key)]).encode()


def _json_lines(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(canonical(line) + b"\n" for line in lines)
