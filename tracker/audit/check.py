"""Verification of an audit export; `tracker.audit.lines` describes the file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import IO, TYPE_CHECKING, Any

from tracker import canonical
from tracker.audit import lines
from tracker.audit.lines import Manifest, Seal
from tracker.erasure import ERASED, named_events, unsalted_events
from tracker.events import COMPLIANCE_ERASED, from_wire
from tracker.outbox import KeyMemory, Links, Problem, Proofs, Unproven, is_seq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_PROBLEMS = 1_000
_LONGEST_LINE = 64 * 1024 * 1024
"""Maximum length of a line in bytes; an event has at most 4 MiB."""
_PLACE = {"seq", "digest", "chain"}
_ENVELOPE = ("event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id", "data")
_OPTIONAL = ("context", "trace", "salt", "sealed")


@dataclass(frozen=True)
class ExportReport:
    """Result of the verification of an export.

    Attributes:
        events: Number of events in the file.
        manifest: The file's manifest, or None if it has none.
        problems: Problems found, at most 1,000; each message names the line.
        unproven: Events without a problem that could not be checked completely.
    """

    events: int
    manifest: Manifest | None
    problems: tuple[Problem, ...]
    unproven: tuple[Unproven, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def proven(self) -> bool:
        """Whether everything was checked and no problem was found."""
        return self.ok and not self.unproven


def check(file: IO[bytes], keys: Sequence[bytes] = ()) -> ExportReport:
    """Check an export line by line: digests, chain, counts and seal.

    Args:
        file: The export, read from its current position to the end.
        keys: The known chain keys.
    """
    walk = _Walk(keys)
    problems = tuple(itertools.islice(walk.problems(file), _MOST_PROBLEMS))
    return ExportReport(walk.events, walk.manifest, problems, tuple(walk.unproven))


class _Walk:
    """One pass over an export."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._seals = [Seal(None), *map(Seal, keys)]
        self._head: dict[str, Any] = {}
        self._links = Links(keys, KeyMemory())
        self._proofs = Proofs(keys, KeyMemory(), None)
        self._number = 0
        self._first: tuple[int, Any] | None = None
        self._seq: int | None = None
        self._chain: Any = None
        # The seqs of erased events that no erasure event has named yet, with and without a salt.
        self._sealed: dict[str, int] = {}
        self._unsalted: dict[str, int] = {}
        self.events = 0
        self._others = 0
        self._removed = 0
        self.manifest: Manifest | None = None
        self.unproven: list[Unproven] = []

    def problems(self, file: IO[bytes]) -> Iterator[Problem]:
        """Yield problems in the order of the lines."""
        closing: dict[str, Any] | None = None
        for self._number, raw in enumerate(_read(file), 1):
            line = _decode(raw)
            if self._number == 1:
                if not self._begin(line):
                    yield Problem(None, "manifest", "line 1: this is not an audit export")
                    return
            elif closing is not None:
                yield self._problem(None, "manifest", "something follows the manifest")
                return
            elif line is not None and isinstance(line.get("manifest"), dict):
                closing = line["manifest"]
                continue
            else:
                yield from self._take(line)
            for seal in self._seals:
                seal.add(raw)
        yield from self._links.end()
        self.unproven += self._links.unproven
        if closing is None:
            yield Problem(
                self._seq,
                "manifest",
                f"the file ends after line {self._number} without a manifest: it was truncated",
            )
        else:
            yield from self._close(closing)
        self.unproven += (
            Unproven(seq, seq, "erased; the erasure event is not in the file")
            for seq in sorted([*self._sealed.values(), *self._unsalted.values()])
        )

    def _begin(self, line: dict[str, Any] | None) -> bool:
        head = line or {}
        if head.get("format") != lines.FORMAT or head.get("version") not in lines.VERSIONS:
            return False
        check = head.get("chain_key_check", 0)
        if not _is_integer(check):
            return False
        self._head = head
        self._chain = head.get("chain_before")
        memory = KeyMemory(check, bool(head.get("keyed_from_start")))
        self._links = Links(self._keys, memory)
        self._proofs = Proofs(self._keys, memory, head.get("outbox_id"))
        return True

    def _take(self, line: dict[str, Any] | None) -> Iterator[Problem]:
        """Check a line between head and manifest."""
        if line is not None and is_seq(line.get("seq")):
            yield from self._take_event(line)
        elif line is not None and _is_range(line.get("removed")):
            first, last = line["removed"]
            yield from self._step_to(first)
            yield from self._check_removal(first, last, line)
            self._removed += last - first + 1
            self._seq, self._chain = last, line.get("chain")
        else:
            yield self._problem(self._seq, "manifest", "this is not a line of an audit export")

    def _check_removal(self, first: int, last: int, line: dict[str, Any]) -> Iterator[Problem]:
        if not set(line) <= {"removed", "chain", "proof"}:
            yield self._problem(first, "manifest", "this is not a line of an audit export")
        found = self._proofs.gap(first, last, line.get("chain"), line.get("proof"))
        if isinstance(found, Problem):
            yield self._problem(found.seq, found.kind, found.message)
        elif found:
            self.unproven.append(found)

    def _take_event(self, line: dict[str, Any]) -> Iterator[Problem]:
        seq, digest, chain = line["seq"], line.get("digest"), line.get("chain")
        yield from self._step_to(seq)
        name = f"{line.get('event_id', f'at seq {seq}')}"
        if "event_id" in line:
            self.events += 1
            if not self._is_whole(line):
                yield self._problem(seq, "digest", f"event {name} was changed after it was stored")
        elif "damaged" in line:
            self.events += 1
            yield self._problem(seq, "digest", "the event was damaged when it was exported")
        else:
            self._others += 1
            if set(line) != _PLACE:
                yield self._problem(seq, "manifest", "this is not a line of an audit export")
        if self._chain is not None:
            yield from self._links.check(seq, name, self._chain, digest, chain)
        self._first = self._first or (seq, chain)
        self._seq, self._chain = seq, chain

    def _step_to(self, seq: int) -> Iterator[Problem]:
        """Check that `seq` is the next one."""
        expected = seq if self._seq is None else self._seq + 1
        if seq == expected:
            return
        self._chain = None
        if seq < expected:
            yield self._problem(seq, "gap", f"seq {seq} does not belong after {self._seq}")
            return
        alone = seq == expected + 1
        shown = f"event {expected} is" if alone else f"events {expected} to {seq - 1} are"
        yield self._problem(expected, "gap", f"{shown} missing before this line")

    def _is_whole(self, line: dict[str, Any]) -> bool:
        """Return True if an event matches its digest or is erased; note the events it erases."""
        try:
            event = from_wire(line)
        except (KeyError, TypeError, ValueError, RecursionError):
            return False
        if not {*_ENVELOPE, *_PLACE} <= set(line) <= {*_ENVELOPE, *_PLACE, *_OPTIONAL}:
            return False
        whole = event.is_intact
        if event.data == ERASED and event.salt is None and whole == (event.sealed is not None):
            kind = self._unsalted if event.sealed is None else self._sealed
            kind[str(event.event_id)] = line["seq"]
            return True
        if whole and event.type == COMPLIANCE_ERASED:
            for event_id in named_events(event.data):
                self._sealed.pop(event_id, None)
            for event_id in unsalted_events(event):
                self._unsalted.pop(event_id, None)
        return whole

    def _close(self, closing: dict[str, Any]) -> Iterator[Problem]:
        """Compare the manifest with the events, and its seal with the lines."""
        seal = closing.pop("seal", None)
        if set(closing) != {field.name for field in fields(Manifest)}:
            yield self._problem(None, "manifest", "the manifest has other fields than version 1")
            return
        for field in fields(Manifest):
            if not _is_of_type(closing[field.name], str(field.type)):
                said = f"the manifest's {field.name} is not of type {field.type}"
                yield self._problem(None, "manifest", said)
                return
        self.manifest = Manifest(**closing)
        first_seq, first_chain = self._first or (None, None)
        counted = {
            "outbox_id": self._head.get("outbox_id"),
            "events": self.events,
            "others": self._others,
            "removed": self._removed,
            "first_seq": first_seq,
            "last_seq": self._seq,
            "first_chain": first_chain,
            "last_chain": self._chain if self._first else None,
        }
        for name, found in counted.items():
            if closing[name] != found:
                said = f"the manifest says {name} {closing[name]!r}, the file has {found!r}"
                yield self._problem(None, "manifest", said)
        yield from self._check_seal(closing, seal)

    def _check_seal(self, closing: dict[str, Any], seal: object) -> Iterator[Problem]:
        made_under = closing["seal_key_check"]
        fitting = [own for own in self._seals if own.key_check == made_under]
        first, last = closing["first_seq"] or 0, closing["last_seq"] or 0
        if not fitting:
            reason = "sealed with a chain key that was not given"
            self.unproven.append(Unproven(first, last, reason))
        elif fitting[0].close(closing) != seal:
            yield self._problem(
                None,
                "manifest",
                "the seal does not match: the file was changed after it was written. If there is "
                "no other problem, the head, the manifest or the format of a line was changed",
            )
        elif self._keys and not made_under:
            self.unproven.append(Unproven(first, last, "sealed without a key"))

    def _problem(self, seq: int | None, kind: str, said: str) -> Problem:
        return Problem(seq, kind, f"line {self._number}: {said}")


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while raw := file.readline(_LONGEST_LINE):
        yield raw


def _decode(raw: bytes) -> dict[str, Any] | None:
    """Return the object in a line; None if it is anything else."""
    try:
        line = canonical.decode(raw) if raw.endswith(b"\n") else None
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _is_range(value: object) -> bool:
    if not (isinstance(value, list) and len(value) == 2 and all(map(is_seq, value))):
        return False
    return bool(value[0] <= value[1])


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_of_type(value: object, type: str) -> bool:
    """Return True if a value is of a type, given as in the annotations of `Manifest`."""
    wanted = type.removesuffix(" | None")
    if value is None:
        return wanted != type
    return _is_integer(value) if wanted == "int" else isinstance(value, str)
