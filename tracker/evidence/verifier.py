"""Check an evidence bundle of the tracker without the tracker: ``python verifier.py --help``.

This one file needs nothing but Python 3.10. Trusted keys come from its caller, never from the
bundle. It asks: who made these records, when did they exist at the latest, were they changed, are
they complete, and is what had to go gone?

The formats are public: Merkle trees of RFC 9162 with SHA-256, signed notes, checkpoints and
cosignatures of C2SP, Ed25519 of RFC 8032, time stamps of RFC 3161.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class NotProvenError(ValueError):
    """Something is not as it is said to be; the message names what, in one line."""


class UnusableError(Exception):
    """The input is not what the command takes; the message names it, in one line."""


# --- Merkle tree: RFC 9162, section 2.1 ---

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(digest: bytes) -> bytes:
    """Return the hash of the leaf that holds an event's digest, of 32 raw bytes."""
    return hashlib.sha256(b"\0" + digest).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over those of its two children."""
    return hashlib.sha256(b"\1" + left + right).digest()


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Return True if a path proves a leaf: RFC 9162, section 2.1.3.2.

    Args:
        leaf: The hash of the leaf.
        index: Its position, from 0.
        size: Number of leaves of the tree.
        path: The hashes beside the way from the leaf up to the root.
        root: The root of the tree.
    """
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for each in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(each, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, each)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def is_extension(
    old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]
) -> bool:
    """Return True if a path proves that a tree extends an older one: RFC 9162, section 2.1.4.2.

    Every tree extends the empty one, and itself, by an empty path.
    """
    if old_size == size:
        return not path and old_root == root
    if not 0 < old_size < size:
        return old_size == 0 and not path and old_root == EMPTY_ROOT
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_found = found = steps[0]
    for each in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old_found, found = node_hash(each, old_found), node_hash(each, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, each)
        at, last = at >> 1, last >> 1
    return last == 0 and old_found == old_root and found == root


def split(size: int) -> int:
    """Return the size of the left subtree of a tree of two leaves or more."""
    return 1 << (size - 1).bit_length() - 1


def root_of(size: int, leaves: Mapping[int, bytes], cover: Iterable[bytes]) -> bytes:
    """Return the root of a tree of which some leaves are known.

    Args:
        size: Number of leaves of the tree.
        leaves: Hashes of the known leaves by position, from 0.
        cover: Hashes of the largest subtrees without a known leaf, from left to right.

    Raises:
        NotProvenError: if a position is beyond the tree, or there are too few or too many hashes.
    """
    known, rest = sorted(leaves), iter(cover)
    if known and not 0 <= known[0] <= known[-1] < size:
        raise NotProvenError("an event is beyond the head")

    def hash_of(start: int, stop: int, first: int, last: int) -> bytes:
        if first == last:
            return next(rest)
        if stop - start == 1:
            return leaves[start]
        middle = start + split(stop - start)
        between = bisect_left(known, middle, first, last)
        return node_hash(
            hash_of(start, middle, first, between), hash_of(middle, stop, between, last)
        )

    try:
        root = hash_of(0, size, 0, len(known)) if size else EMPTY_ROOT
    except StopIteration:
        raise NotProvenError("the proof has too few hashes") from None
    if next(rest, None) is not None:
        raise NotProvenError("the proof has too many hashes")
    return root


# --- Ed25519: RFC 8032, section 5.1 ---

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_NEUTRAL = (0, 1, 1, 0)
_Point = tuple[int, int, int, int]  # extended coordinates: X, Y, Z, T


def _add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(point: _Point) -> _Point:
    a, b = point[0] * point[0] % _P, point[1] * point[1] % _P
    c, h = 2 * point[2] * point[2], a + b
    e, g = h - (point[0] + point[1]) ** 2, a - b
    f = c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _decode_point(raw: bytes) -> _Point | None:
    number = int.from_bytes(raw, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT_OF_MINUS_1 % _P
    if x * x % _P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode_point(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _sum_of_multiples(a: int, one: _Point, b: int, other: _Point) -> _Point:
    """Return `a` times one point and `b` times another."""
    choice = {1: one, 2: other, 3: _add(one, other)}
    found = _NEUTRAL
    for at in reversed(range(max(a.bit_length(), b.bit_length()))):
        found = _double(found)
        bits = a >> at & 1 | (b >> at & 1) << 1
        if bits:
            found = _add(found, choice[bits])
    return found


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return True if an Ed25519 signature of 64 bytes over a message is by that public key."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    base = _decode_point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    key = _decode_point(public_key)
    scalar = int.from_bytes(signature[32:], "little")
    if base is None or key is None or scalar >= _ORDER:
        return False
    hashed = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(hashed, "little") % _ORDER
    minus_key = (_P - key[0], key[1], 1, _P - key[3])
    found = _sum_of_multiples(scalar, base, challenge, minus_key)
    return _encode_point(found) == signature[:32]


Check = Callable[[bytes, bytes, bytes], bool]


# --- C2SP signed-note, tlog-checkpoint, tlog-cosignature ---

ED25519 = 0x01
"""The type of a signature over a note's text."""
COSIGNATURE = 0x04
"""The type of a witness's signature over a checkpoint, with the witness's time."""
ORIGIN, BUNDLE, KEY_CHANGE = "tracker.outbox/", "tracker.bundle/", "tracker.key-change/"
"""What stands before the outbox id in the first line of a checkpoint, manifest or key change."""
_MOST_SIGNATURES = 64
_LONGEST_NOTE = 1 << 20
_LATEST = 253_402_300_799  # the last second of the year 9999
_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Key(NamedTuple):
    """A public key that signs notes.

    Attributes:
        name: Who signs; for an outbox, the origin of its checkpoints.
        type: `ED25519` or `COSIGNATURE`.
        public_key: 32 bytes.
    """

    name: str
    type: int
    public_key: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that, with the name, say which key made a signature."""
        named = self.name.encode() + b"\n" + bytes([self.type]) + self.public_key
        return hashlib.sha256(named).digest()[:4]

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.type]) + self.public_key).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"


class Signature(NamedTuple):
    """A signature line of a note: the key's name and id, and the signature itself."""

    name: str
    key_id: bytes
    value: bytes


class Note(NamedTuple):
    """A signed note: its text, which ends in a newline, and the signatures, not yet verified."""

    text: str
    signatures: tuple[Signature, ...]


class Checkpoint(NamedTuple):
    """The head of a tree: origin, number of leaves, root, and the note in which it stands."""

    origin: str
    size: int
    root: bytes
    note: Note


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text in its one canonical form.

    Raises:
        ValueError: if it is anything else.
    """
    raw = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical base64")
    return raw


def decode_hashes(text: str) -> list[bytes]:
    """Return the hashes of 32 bytes that base64 text holds, one after the other.

    Raises:
        ValueError, TypeError, AttributeError: if it holds anything else.
    """
    raw = decode_base64(text)
    if len(raw) % 32:
        raise ValueError("a hash is cut off")
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


def parse_key(text: str) -> Key:
    """Return the key that a verifier key such as ``name+12ab34cd+AbCd…`` says.

    Raises:
        NotProvenError: if it is not one, is of another type, or its id is wrong.
    """
    name, _, rest = text.partition("+")
    try:
        raw = decode_base64(rest[9:] if name.isprintable() else "?")
    except ValueError:
        raise NotProvenError("this is not a verifier key") from None
    key = Key(name, raw[0] if raw else 0, raw[1:])
    if key.type not in (ED25519, COSIGNATURE) or len(key.public_key) != 32:
        raise NotProvenError("this is not an Ed25519 verifier key")
    if str(key) != text or not _NAME.fullmatch(name):
        raise NotProvenError("this is not a verifier key, or it has a mistake")
    return key


def parse_note(raw: bytes) -> Note:
    """Return a signed note.

    Raises:
        NotProvenError: if it is none.
    """
    try:
        note = raw.decode()
    except UnicodeDecodeError:
        raise NotProvenError("not a signed note: not UTF-8") from None
    body, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or len(raw) > _LONGEST_NOTE or _CONTROL.search(note):
        raise NotProvenError("not a signed note")
    lines = tail[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise NotProvenError("a note with too many signatures")
    return Note(body + "\n", tuple(map(_parse_signature, lines)))


def _parse_signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = decode_base64(encoded)
    except ValueError:
        raw = b""
    if dash != "\u2014" or not _NAME.fullmatch(name) or len(raw) < 5:
        raise NotProvenError("a signature line of a note is damaged")
    return Signature(name, raw[:4], raw[4:])


def parse_checkpoint(raw: bytes) -> Checkpoint:
    """Return the head of a tree in a signed note.

    Raises:
        NotProvenError: if it is none.
    """
    return head_in(parse_note(raw))


def head_in(note: Note) -> Checkpoint:
    """Return the head of a tree in a note that was read; nothing is verified.

    Raises:
        NotProvenError: if there is none in it.
    """
    lines = note.text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines) or not _DECIMAL.fullmatch(lines[1]):
        raise NotProvenError("not a checkpoint")
    try:
        root = decode_base64(lines[2])
    except ValueError:
        root = b""
    if len(root) != 32 or int(lines[1]) >= 2**63:
        raise NotProvenError("not a checkpoint")
    return Checkpoint(lines[0], int(lines[1]), root, note)


def parse_key_change(raw: bytes, check: Check = is_signed) -> tuple[str, Key, Key]:
    """Return outbox id, old key and new key of a note by which a device changes its key.

    `check` verifies one signature, as for `signers`.

    Raises:
        NotProvenError: if it is no such note, or not signed by both keys.
    """
    note = parse_note(raw)
    title, *lines = note.text[:-1].split("\n")
    if not title.startswith(KEY_CHANGE) or len(lines) != 2:
        raise NotProvenError("not a key change")
    old, new = map(parse_key, lines)
    if signers(note, (old, new), check).keys() != {old, new}:
        raise NotProvenError("a key change that is not signed by both keys")
    return title.removeprefix(KEY_CHANGE), old, new


def signers(note: Note, keys: Iterable[Key], check: Check = is_signed) -> dict[Key, int | None]:
    """Return which of the known keys signed a note; with a witness's time, as Unix seconds.

    Signatures of unknown keys are passed over, as C2SP asks.

    Args:
        note: The note.
        keys: The known keys.
        check: Verifies one signature, given as public key, message and signature.

    Raises:
        NotProvenError: if a signature that names a known key is not by that key.
    """
    known = {(key.name, key.id): key for key in keys}
    found: dict[Key, int | None] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        time, message, value = _signed_message(key, note.text, signature.value)
        if (time or 0) > _LATEST or not check(key.public_key, message, value):
            raise NotProvenError(f"the signature of {key.name} does not match")
        earlier = found.get(key)
        found[key] = time if earlier is None or time is None else min(time, earlier)
    return found


def _signed_message(key: Key, text: str, value: bytes) -> tuple[int | None, bytes, bytes]:
    if key.type == ED25519:
        return None, text.encode(), value
    time = int.from_bytes(value[:8], "big")
    return time, cosigned_message(text, time), value[8:]


def cosigned_message(text: str, time: int) -> bytes:
    """Return what a witness signs: a checkpoint's text with the time, in Unix seconds."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


# --- Events: canonical JSON, digests of version 1 and 2 ---

_HEAD = {"agent_id", "event_id", "session_id", "timestamp_ms", "type"}
_MAY_HAVE = {"context", "trace"}
_ERASED = {"erased": True}
_VERSION_1 = _HEAD | {"user_id", "data"}


def canonical(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no white space, UTF-8.

    Raises:
        ValueError: if JSON or UTF-8 cannot hold the value.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return text.encode()


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def halves(salt: bytes) -> tuple[bytes, bytes]:
    """Return the salts of user id and data that the salt of an event, of 16 bytes, gives."""
    both = _sha256(salt)
    return both[:16], both[16:]


def commit_user(salt: bytes, user_id: str | None) -> bytes:
    """Return the commitment to a user id under its half of the salt."""
    return _sha256(b"s", salt, b"\0" if user_id is None else b"\1" + user_id.encode())


def commit_data(salt: bytes, data: Any) -> bytes:
    """Return the commitment to an event's data under its half of the salt."""
    return _sha256(b"d", salt, canonical(data))


def sealed_digest(event: Mapping[str, Any], user: bytes, data: bytes) -> bytes:
    """Return the digest, version 2, of an event's head and its two commitments."""
    head = {name: event[name] for name in _HEAD}
    head |= {name: event[name] for name in _MAY_HAVE if name in event}
    return _sha256(b"tracker/2\0", _sha256(canonical(head)), user, data)


class Reading(NamedTuple):
    """What a line of a bundle says.

    Attributes:
        digest: The event's digest, of 32 bytes.
        kind: ``whole``, ``erased``, ``withheld`` (a part is not shown), ``digest`` (nothing is
            shown), or ``unchecked`` (erased under version 1: nothing but the digest is proven).
    """

    digest: bytes
    kind: str


def read_event(event: Mapping[str, Any]) -> Reading:
    """Return the digest of an event as it stands in a bundle; its seq is not looked at.

    Raises:
        NotProvenError: if the event has fields that its form does not have, or lacks one.
    """
    shown = set(event) - {"seq"}
    try:
        if shown == {"digest"}:
            return Reading(_bytes(event["digest"], 32), "digest")
        if shown == _VERSION_1:
            return Reading(_sha256(canonical({name: event[name] for name in shown})), "whole")
        if shown == _VERSION_1 | {"digest"} and event["data"] == _ERASED:
            return Reading(_bytes(event["digest"], 32), "unchecked")
        return _read_version_2(event, shown - _HEAD - _MAY_HAVE)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotProvenError("this is not an event of a bundle") from None


def _read_version_2(event: Mapping[str, Any], parts: set[str]) -> Reading:
    kind = "withheld"
    if parts == {"user_id", "data", "salt"}:
        user_salt, data_salt = halves(_bytes(event["salt"], 16))
        user, data = commit_user(user_salt, event["user_id"]), commit_data(data_salt, event["data"])
        kind = "whole"
    elif parts == {"user_id", "data", "sealed"}:
        if event["user_id"] is not None or event["data"] != _ERASED:
            raise ValueError("an erased event still says something")
        sealed = _bytes(event["sealed"], 64)
        user, data, kind = sealed[:32], sealed[32:], "erased"
    elif parts == {"user_sealed", "data", "data_salt"}:
        user = _bytes(event["user_sealed"], 32)
        data = commit_data(_bytes(event["data_salt"], 16), event["data"])
    elif parts == {"user_id", "user_salt", "data_sealed"}:
        user = commit_user(_bytes(event["user_salt"], 16), event["user_id"])
        data = _bytes(event["data_sealed"], 32)
    elif parts == {"user_sealed", "data_sealed"}:
        user, data = _bytes(event["user_sealed"], 32), _bytes(event["data_sealed"], 32)
    else:
        raise ValueError("unknown fields")
    return Reading(sealed_digest(event, user, data), kind)


def _bytes(text: str, length: int) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != length or raw.hex() != text:
        raise ValueError("not hex digits of that length")
    return raw


# --- The bundle ---

MANIFEST, CHECKPOINT, PROOF = "manifest.txt", "checkpoint.txt", "proof.json"
EVENTS, REMOVALS = "events.jsonl", "removals.jsonl"
UNUSED = ("report.html", "keys.json")
_MEMBER = re.compile(
    r"manifest\.txt|checkpoint\.txt|proof\.json|events\.jsonl|removals\.jsonl|report\.html"
    r"|keys\.json|(heads/|timestamps/)(0|[1-9][0-9]{0,18})\.(txt|tsr)"
)
LARGEST = 1 << 29
"""Bytes of all members of a bundle together; its writer refuses to make a larger one."""
_LARGEST_KEY_FILE = 4_096
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError),
    *(ValueError, IndexError, OverflowError),
)
"""What `zipfile` raises for files that were damaged or made to hurt."""


class _Naming:
    """Puts the name of a member before the message of what is wrong in it."""

    def __init__(self, member: str) -> None:
        self._member = member

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotProvenError):
            raise NotProvenError(f"{self._member}: {error}") from None


def read_members(path: Path) -> dict[str, bytes]:
    """Return the members of a bundle by name.

    Raises:
        UnusableError: if the file is not a bundle.
        NotProvenError: if a member is damaged or does not belong in a bundle.
    """
    try:
        if path.exists() and not path.is_file():
            raise UnusableError(f"{path}: not a file")
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise UnusableError(f"{path}: not a bundle that can be read: {error}") from None
    members: dict[str, bytes] = {}
    left = LARGEST
    with archive:
        for info in archive.infolist():
            name = ascii(info.filename)[1:-1]
            if not _MEMBER.fullmatch(name) or name in members:
                raise NotProvenError(f"{name}: such a member does not belong in a bundle")
            members[name] = _read_member(archive, info, left)
            left -= len(members[name])
    for name in (MANIFEST, CHECKPOINT, PROOF, EVENTS):
        if name not in members:
            raise NotProvenError(f"{name}: missing")
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    if info.file_size > most:
        raise NotProvenError(f"{info.filename}: too large")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotProvenError(f"{info.filename}: damaged")
    try:
        return archive.read(info)
    except _BROKEN:
        raise NotProvenError(f"{info.filename}: damaged") from None


def decode(raw: bytes) -> dict[str, Any]:
    """Return the object of canonical JSON.

    Raises:
        NotProvenError: if it is anything else.
    """
    try:
        value = json.loads(raw)
        if isinstance(value, dict) and canonical(value) == raw:
            return value
    except (ValueError, RecursionError):
        pass
    raise NotProvenError("not an object in canonical JSON")


class Trust(NamedTuple):
    """Whom the caller of a check trusts.

    Attributes:
        keys: Public keys of devices, each a verifier key or 64 hex digits.
        witnesses: Verifier keys of witnesses, all of whom must have signed.
        tsa_roots: Files of certificates (PEM) that vouch for time stamps.
    """

    keys: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    tsa_roots: tuple[Path, ...] = ()


class Answer(NamedTuple):
    """A question, whether it is answered (``yes``, ``no``, ``partly``), and what was found."""

    question: str
    state: str
    text: str


class Report(NamedTuple):
    """What a check found.

    Attributes:
        verdict: ``PROVEN``, ``INCOMPLETE``, ``INTEGRITY ONLY`` or ``NOT PROVEN``.
        summary: One line that says what was checked, or what is wrong.
        answers: An answer to each question; none if something is wrong.
    """

    verdict: str
    summary: str
    answers: tuple[Answer, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if proven, 1 if something is wrong, 3 if part of it could not be checked."""
        return {"PROVEN": 0, "NOT PROVEN": 1}.get(self.verdict, 3)

    def __str__(self) -> str:
        width = max((len(each.question) for each in self.answers), default=0)
        lines = [f"{self.verdict}: {self.summary}"]
        lines += [f"{q:<{width}}  {state:<6}  {text}" for q, state, text in self.answers]
        return "\n".join(map(_printable, lines))


def verify(bundle: Path, trust: Trust) -> Report:
    """Check a bundle.

    Raises:
        UnusableError: if the file is not a bundle, or a key or certificate file is not one.
    """
    keys = tuple(_device_key(each) for each in trust.keys)
    witnesses = tuple(_trusted_key(each, COSIGNATURE) for each in trust.witnesses)
    for root in trust.tsa_roots:
        if not root.is_file():
            raise UnusableError(f"{root}: there is no such file")
    try:
        check = _Check(read_members(bundle), keys, witnesses)
        check.run(trust.tsa_roots)
    except NotProvenError as error:
        return Report("NOT PROVEN", f"{bundle}: {error}")
    return check.report(str(bundle))


_HEX_KEY = re.compile(r"[0-9a-f]{64}")


def _device_key(text: str) -> Key | bytes:
    return bytes.fromhex(text) if _HEX_KEY.fullmatch(text) else _trusted_key(text, ED25519)


def _trusted_key(text: str, type: int) -> Key:
    try:
        key = parse_key(text)
    except NotProvenError as error:
        raise UnusableError(f"{text}: {error}") from None
    if key.type != type:
        raise UnusableError(f"{text}: a key of type {type} is needed, this one has {key.type}")
    return key


class _Head(NamedTuple):
    """A head in a bundle: where it stands, the raw note, and what the note says."""

    member: str
    raw: bytes
    checkpoint: Checkpoint


class _Check:
    """One check of a bundle; each step stops at what is wrong, and notes what it could not see."""

    def __init__(
        self,
        members: dict[str, bytes],
        keys: tuple[Key | bytes, ...],
        witnesses: tuple[Key, ...],
    ) -> None:
        self._members = members
        with _Naming(CHECKPOINT):
            self._head = parse_checkpoint(members[CHECKPOINT])
            if not self._head.origin.startswith(ORIGIN):
                raise NotProvenError("not the head of an outbox")
        self._outbox_id = self._head.origin.removeprefix(ORIGIN)
        self._keys = [
            Key(self._head.origin, ED25519, each) if isinstance(each, bytes) else each
            for each in keys
        ]
        self._witnesses = witnesses
        self._selected = _Lines()
        self._removals = _Lines()
        self._consistency: dict[str, list[bytes]] = {}
        self._signed_by: list[str] = []
        self._times: list[tuple[int, int, str]] = []
        self._unused: list[str] = []
        self._unfinished: list[str] = []
        self._manifest_signed = False

    def run(self, tsa_roots: Sequence[Path]) -> None:
        """Make every check.

        Raises:
            NotProvenError: at the first that fails.
        """
        self._check_manifest()
        with _Naming(EVENTS):
            self._selected.read(self._members[EVENTS])
            if not self._selected.shown:
                raise NotProvenError("there is no event in it")
        with _Naming(REMOVALS):
            self._removals.read(self._members.get(REMOVALS, b""))
        with _Naming(PROOF):
            self._check_proof()
        self._follow_key_watch()
        heads = [_Head(CHECKPOINT, self._members[CHECKPOINT], self._head), *self._older_heads()]
        for head in heads:
            with _Naming(head.member):
                self._check_signatures(head)
        self._check_trust()
        self._check_stamps({head.checkpoint.size: head for head in heads}, tsa_roots)

    def _check_manifest(self) -> None:
        with _Naming(MANIFEST):
            raw = self._members[MANIFEST]
            note = parse_note(raw) if b"\n\n" in raw else None
            title, said = _parse_manifest(raw if note is None else note.text.encode())
            if title != BUNDLE + self._outbox_id:
                raise NotProvenError("of another outbox than the head")
            keys = [*self._keys, *(key._replace(type=ED25519) for key in self._witnesses)]
            self._manifest_signed = bool(note and signers(note, keys))
        for name in sorted({*said, *self._members} - {MANIFEST}):
            if name not in said:
                raise NotProvenError(f"{name}: not in the manifest")
            if name not in self._members:
                raise NotProvenError(f"{name}: missing")
            if hashlib.sha256(self._members[name]).hexdigest() != said[name]:
                raise NotProvenError(f"{name}: changed after the bundle was written")

    def _check_proof(self) -> None:
        proof = decode(self._members[PROOF])
        try:
            cover = decode_hashes(proof["hashes"])
            fields = {"version", "size", "selection", "complete", "hashes", "consistency"}
            if proof["version"] != 1 or set(proof) != fields or type(proof["complete"]) is not bool:
                raise ValueError("of another version")
            for size, path in proof["consistency"].items():
                self._consistency[size] = decode_hashes(path)
            selection, shown = proof["selection"], self._selected.shown
            unfitting = [seq for seq, event in shown.items() if not _fits(event, selection)]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise NotProvenError("not a proof of version 1") from None
        if proof["size"] != self._head.size:
            raise NotProvenError("of another head")
        if unfitting:
            raise NotProvenError(f"the event of seq {unfitting[0]} is not of those selected")
        twice = self._selected.leaves.keys() & self._removals.leaves.keys()
        if twice:
            raise NotProvenError(f"seq {min(twice) + 1} is there twice")
        leaves = self._selected.leaves | self._removals.leaves
        if root_of(self._head.size, leaves, cover) != self._head.root:
            raise NotProvenError("the events are not those under the head: one was changed")
        if proof["complete"] and not self._selected.spans(selection):
            raise NotProvenError("said to be complete, but events between are missing")

    def _follow_key_watch(self) -> None:
        """Trust the key that a trusted one handed over to, by a note that both signed."""
        for event in self._shown("integrity.key_changed"):
            try:
                outbox_id, old, new = parse_key_change(str(event["data"].get("note")).encode())
            except NotProvenError:
                continue  # if the head needs it, no trusted key will have signed the head
            if outbox_id == self._outbox_id and old in self._keys:
                self._keys.append(new)

    def _shown(self, type: str) -> Iterator[dict[str, Any]]:
        for lines in (self._selected, self._removals):
            for event in lines.shown.values():
                if event["type"] == type and isinstance(event.get("data"), dict):
                    yield event

    def _older_heads(self) -> Iterator[_Head]:
        named = {f"heads/{size}.txt": path for size, path in self._consistency.items()}
        for name in sorted(
            {name for name in self._members if name.startswith("heads/")} | {*named}
        ):
            with _Naming(name):
                if name not in named or name not in self._members:
                    raise NotProvenError("a head without its proof, or a proof without its head")
                older = parse_checkpoint(self._members[name])
                if (older.origin, f"heads/{older.size}.txt") != (self._head.origin, name):
                    raise NotProvenError("not the head that its name says")
                if not is_extension(
                    older.size, older.root, self._head.size, self._head.root, named[name]
                ):
                    raise NotProvenError("the checkpoint does not extend this head")
                yield _Head(name, self._members[name], older)

    def _check_signatures(self, head: _Head) -> None:
        found = signers(head.checkpoint.note, [*self._keys, *self._witnesses])
        for key, time in found.items():
            if time is not None:
                self._times.append((head.checkpoint.size, time, f"the witness {key.name}"))
            if head.checkpoint is self._head:
                self._signed_by.append(str(key))

    def _check_trust(self) -> None:
        if self._keys and not {*map(str, self._keys)} & {*self._signed_by}:
            raise NotProvenError(
                f"{CHECKPOINT}: not signed by the key that was given{self._under_another_id()}"
            )
        for witness in self._witnesses:
            if str(witness) not in self._signed_by:
                raise NotProvenError(f"{CHECKPOINT}: not signed by the witness {witness.name}")

    def _under_another_id(self) -> str:
        """Return the end of the sentence if a key was given for another outbox id, and signed."""
        renamed = [key._replace(name=self._head.origin) for key in self._keys]
        for key in signers(self._head.note, renamed):
            digits = key.public_key.hex()
            return f" for that outbox id, but for this one; to trust it for any, give {digits}"
        return ""

    def _check_stamps(self, heads: Mapping[int, _Head], tsa_roots: Sequence[Path]) -> None:
        for name in sorted(name for name in self._members if name.startswith("timestamps/")):
            with _Naming(name):
                head = heads.get(int(name[len("timestamps/") : -len(".tsr")]))
                if head is None:
                    raise NotProvenError("there is no such head")
                if not tsa_roots:
                    self._unused.append(f"{name} (give --tsa-root)")
                    continue
                time = stamped_at(self._members[name], head.raw, tsa_roots)
            if time is None:
                command = shown_command(name, head.member, tsa_roots[0])
                self._unfinished.append(f"openssl is missing: run {command}")
            else:
                self._times.append((head.checkpoint.size, time, "a time stamp"))

    def report(self, bundle: str) -> Report:
        """Return what was found, once every check was made."""
        erasure = self._on_erasure()
        answers = (
            self._on_maker(),
            self._on_time(),
            self._on_change(),
            self._on_completeness(),
            erasure,
            Answer("checked without the vendor?", "yes", self._on_independence()),
        )
        events = len(self._selected.shown)
        summary = f"{bundle}: {_count(events, 'event')} of outbox {self._outbox_id}"
        if not self._signed_by:
            verdict = "INTEGRITY ONLY"
            summary += "; no trusted key was given, so anybody may have made this"
        elif self._unfinished or erasure.state == "partly":
            verdict = "INCOMPLETE"
            summary += "".join(f"; {each}" for each in self._unfinished)
        else:
            verdict = "PROVEN"
        return Report(verdict, summary, answers)

    def _on_maker(self) -> Answer:
        question = "who made these records?"
        device = [key for key in self._signed_by if parse_key(key).type == ED25519]
        if device:
            return Answer(question, "yes", f"signed by the device key {', '.join(device)}")
        if self._signed_by:
            return Answer(
                question, "partly", "somebody with the outbox's API key, says the witness"
            )
        return Answer(question, "no", "give --key or --witness")

    def _on_time(self) -> Answer:
        question = "when did they exist at the latest?"
        last = max(self._selected.leaves) + 1
        times = [(time, who) for size, time, who in self._times if size >= last]
        if not times:
            return Answer(question, "no", "only the device's own clock says so")
        time, who = min(times)
        return Answer(question, "yes", f"at {_utc(time)}, by {who}")

    def _on_change(self) -> Answer:
        counts = self._selected.counts()
        text = f"all {len(self._selected.leaves)} stand unchanged under {self._describe_head()}"
        if counts["withheld"]:
            text += f"; of {counts['withheld']}, a part is withheld"
        if not counts["unchecked"]:
            return Answer("were they left unchanged?", "yes", text)
        text += f"; of {counts['unchecked']}, only the digest is proven (erased under version 1)"
        return Answer("were they left unchanged?", "partly", text)

    def _describe_head(self) -> str:
        return f"the head of {self._head.size} events with root {self._head.root.hex()[:16]}…"

    def _on_completeness(self) -> Answer:
        question = "are they complete?"
        leaves, digests = self._selected.leaves, self._selected.counts()["digest"]
        between = f"between seq {min(leaves) + 1} and {max(leaves) + 1}"
        if missing := self._selected.missing():
            return Answer(question, "no", f"not claimed: {missing} {between} are not in here")
        if digests:
            text = (
                f"no number {between} is missing, but {digests} are digests: nobody can see whose"
            )
            return Answer(question, "partly", text)
        return Answer(question, "yes", f"no number {between} is missing")

    def _on_erasure(self) -> Answer:
        question = "is what had to go gone?"
        counts = self._selected.counts()
        named = {
            str(each)
            for event in self._shown("compliance.erased")
            for each in _as_list(event["data"].get("event_ids"))
        }
        unnamed = [
            seq
            for seq, event in self._selected.shown.items()
            if self._selected.kinds[seq] in ("erased", "unchecked")
            and event["event_id"] not in named
        ]
        if unnamed:
            text = f"{_count(len(unnamed), 'erased event')} named by no erasure event in here"
            return Answer(question, "partly", text)
        if counts["unchecked"]:
            text = "erased under version 1: the digest that stays can be guessed from"
            return Answer(question, "partly", text)
        if counts["erased"]:
            text = (
                f"{_count(counts['erased'], 'event')} erased; nothing can be guessed from the rest"
            )
            return Answer(question, "yes", text)
        return Answer(question, "yes", "nothing in here was erased")

    def _on_independence(self) -> str:
        unused = sorted(self._members.keys() & UNUSED) + self._unused
        text = "with this file, Python, and the keys that were given"
        if unused:
            text += f"; not used: {', '.join(unused)}"
            text += (
                "" if self._manifest_signed else " (and their manifest has no trusted signature)"
            )
        return text


class _Lines:
    """The events in a member: leaves by position, and what is shown of each by seq."""

    def __init__(self) -> None:
        self.leaves: dict[int, bytes] = {}
        self.shown: dict[int, dict[str, Any]] = {}
        self.kinds: dict[int, str] = {}

    def read(self, raw: bytes) -> None:
        """Read JSON Lines in ascending order of seq.

        Raises:
            NotProvenError: if a line is not an event of a bundle.
        """
        *lines, rest = raw.split(b"\n")
        if rest:
            raise NotProvenError("the last line is cut off")
        last = 0
        for number, line in enumerate(lines, 1):
            with _Naming(f"line {number}"):
                event = decode(line)
                seq = event.get("seq")
                if type(seq) is not int or not last < seq < 2**63:
                    raise NotProvenError("its seq is not greater than the one before")
                reading = read_event(event)
            last = seq
            self.leaves[seq - 1] = leaf_hash(reading.digest)
            self.kinds[seq] = reading.kind
            if reading.kind != "digest":
                self.shown[seq] = event

    def counts(self) -> Counter[str]:
        """Return the number of events by kind."""
        return Counter(self.kinds.values())

    def spans(self, selection: Mapping[str, Any]) -> bool:
        """Return True if every number is there, from the first selected to the last."""
        first, last = min(self.leaves) + 1, max(self.leaves) + 1
        ends = selection.get("first_seq", first), selection.get("last_seq", last)
        return ends == (first, last) and not self.missing()

    def missing(self) -> int:
        """Return how many numbers between the first and the last are not there."""
        return max(self.leaves) - min(self.leaves) + 1 - len(self.leaves)


def _parse_manifest(raw: bytes) -> tuple[str, dict[str, str]]:
    """Return the first line of a manifest, and the SHA-256 of each member by name."""
    try:
        title, *lines = raw.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise NotProvenError("not a manifest") from None
    said: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if not _HEX_KEY.fullmatch(digest) or not _MEMBER.fullmatch(name) or name in said:
            raise NotProvenError("not a manifest")
        said[name] = digest
    return title, said


def _fits(event: Mapping[str, Any], selection: Mapping[str, Any]) -> bool:
    """Return True if an event is one of those that a bundle says it selects.

    Raises:
        ValueError: if this is not a selection.
    """
    if selection.keys() == {"session_id"}:
        return bool(event["session_id"] == selection["session_id"])
    if selection.keys() == {"first_seq", "last_seq"}:
        return bool(selection["first_seq"] <= event["seq"] <= selection["last_seq"])
    if selection.keys() == {"since_ms", "until_ms"}:
        since, until = selection["since_ms"], selection["until_ms"]
        at = event["timestamp_ms"]
        return (since is None or since <= at) and (until is None or at < until)
    raise ValueError("not a selection")


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _utc(time: int) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


# --- Time stamps of RFC 3161, by openssl ---

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STAMPED = re.compile(
    r"^Time stamp: (\w{3}) +(\d+) (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d{4}) GMT$", re.MULTILINE
)


def shown_command(token: str, data: str, root: Path) -> str:
    """Return the command that checks a time stamp, for somebody who unpacked the bundle."""
    return f"openssl ts -verify -in {token} -data {data} -CAfile {root}"


def stamped_at(token: bytes, data: bytes, roots: Sequence[Path]) -> int | None:
    """Return the time of a time stamp over `data`, as Unix seconds; None if there is no openssl.

    Raises:
        NotProvenError: if it is not a time stamp over `data` for which one of the roots vouches.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        stamp, stamped = Path(folder, "stamp.tsr"), Path(folder, "stamped")
        stamp.write_bytes(token)
        stamped.write_bytes(data)
        ts = [openssl, "ts"]
        for root in roots:
            files = ["-in", str(stamp), "-data", str(stamped), "-CAfile", str(root)]
            if _run([*ts, "-verify", *files]) is not None:
                shown = _run([*ts, "-reply", "-in", str(stamp), "-text"])
                break
        else:
            raise NotProvenError("no --tsa-root vouches for this time stamp over the head")
    found = _STAMPED.search(shown or "")
    if found is None or found[1] not in _MONTHS:
        raise NotProvenError("its time cannot be read")
    month, day, hour, minute, second, year = found.groups()
    at = datetime(
        *(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)),
        tzinfo=timezone.utc,
    )
    return int(at.timestamp())


def _run(command: list[str]) -> str | None:
    """Return what a command prints, or None if it fails."""
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - no shell
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


# --- The command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        description="Check an evidence bundle. Keys are never taken from the bundle itself.",
        epilog="Exit codes: 0 proven, 1 not proven, 2 input that cannot be used, 3 incomplete, or "
        "integrity only because no key was given.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="KEY",
        help="public key of the device: name+id+base64, or its 64 hex digits, or a file that "
        "contains it; one of those given must have signed",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="KEY",
        help="public key of a witness: name+id+base64, or a file that contains it; all that are "
        "given must have signed",
    )
    parser.add_argument(
        "--tsa-root",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="certificate (PEM) that vouches for time stamps",
    )
    given = parser.parse_args(arguments)
    try:
        trust = Trust(
            tuple(map(_from_file, given.key)),
            tuple(map(_from_file, given.witness)),
            tuple(given.tsa_root),
        )
        report = verify(given.bundle, trust)
    except UnusableError as error:
        sys.stderr.write(f"{_printable(str(error))}\n")
        return 2
    sys.stdout.write(f"{report}\n")
    return report.exit_code


def _from_file(text: str) -> str:
    """Return what the file of that name contains, or the text itself if there is none."""
    try:
        with Path(text).open("rb") as file:
            content = file.read(_LARGEST_KEY_FILE + 1)
        return content.decode("ascii").strip() if len(content) <= _LARGEST_KEY_FILE else text
    except (OSError, ValueError):
        return text


def _printable(line: str) -> str:
    """Return a line that cannot steer a terminal, and that the terminal's encoding can hold."""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    encoding = sys.stdout.encoding or "ascii"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
