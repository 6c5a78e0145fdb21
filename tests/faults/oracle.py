"""What was acknowledged, held against what arrived: the judge of every fault.

A writer under test says numbered words whose text follows from writer and number. Once the call
has returned, the id is noted in a file outside the process (and outside the faulty disk). So of
every event that arrives it is known what it must hold, and whether anybody can have said it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.figures import say
from tests.support.agent import Notes, read_notes
from tracker import Tracker
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import ledger
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pytest

    from tracker import APIConfig

SAID = "fault.said"
"""Type of the events that writers log."""
_SDKS_OWN = (
    "compliance.erased",
    "events.discarded",
    "integrity.checkpoint",
    "retention.applied",
    "security.reported",
)
_ERASED = {"erased": True}


def words(writer: str, number: int, size: int) -> dict[str, Any]:
    """Return the data of a writer's event, of about `size` bytes; no two are alike."""
    pattern = f"{writer} said {number}. "
    return {"number": number, "size": size, "text": (pattern * (size // len(pattern) + 1))}


class Writer:
    """One thread's stream of events on a tracker; it notes what was acknowledged.

    Args:
        tracker: Where it logs.
        name: Its name, which no other writer has: the session id and user id of its events.
        notes: The file of acknowledgements.
    """

    def __init__(self, tracker: Tracker, name: str, notes: Path) -> None:
        self._tracker = tracker
        self.name = name
        self._notes = Notes(notes)
        self._number = 0

    def say(self, size: int = 200) -> None:
        """Log the next event, and note its id once the call has returned."""
        number, self._number = self._number, self._number + 1
        event_id = self._tracker.track(
            SAID, words(self.name, number, size), session_id=self.name, user_id=self.name
        )
        self._notes.add(id=event_id, writer=self.name, number=number)


@dataclass(frozen=True)
class Verdict:
    """What became of the events.

    Attributes:
        acknowledged: How many calls returned.
        lost: Ids of those events that never arrived.
    """

    acknowledged: int
    lost: Sequence[str]


def judge(
    notes: Iterable[Mapping[str, Any]],
    arrived: Sequence[Mapping[str, Any]],
    *,
    forgotten: Iterable[str] = (),
) -> Verdict:
    """Hold what arrived at the receiver against what was acknowledged.

    Fails if an event was invented, differs from what was said, came twice or out of order. What
    is lost is returned: some faults may cost events.

    Args:
        notes: The acknowledgements, as `Writer` notes them.
        arrived: The events at the receiver, in order of first arrival, without those it dropped.
        forgotten: Writers whose events may have been erased.
    """
    acknowledged = {note["id"]: (note["writer"], note["number"]) for note in notes}
    next_number: dict[str, int] = defaultdict(int)
    for writer, number in acknowledged.values():
        next_number[writer] = max(next_number[writer], number + 1)
    ids = [event["event_id"] for event in arrived]
    assert len(set(ids)) == len(ids), "an event came twice"
    seqs = [event["seq"] for event in arrived]
    assert seqs == sorted(set(seqs)), "events came out of order, or two under one number"
    may_be_gone = set(forgotten)
    said = [event for event in arrived if event["type"] == SAID]
    for event in said:
        if event["data"] == _ERASED:
            assert event["session_id"] in may_be_gone, f"{event} was never to be erased"
        else:
            _check_words(event, acknowledged.get(event["event_id"]), next_number)
    strange = {event["type"] for event in arrived} - {SAID, *_SDKS_OWN}
    assert not strange, f"nobody logged events of the types {strange}"
    _check_order_of_each(said)
    return Verdict(len(acknowledged), sorted(acknowledged.keys() - set(ids)))


def _check_words(
    event: Mapping[str, Any], acknowledged: tuple[str, int] | None, next_number: Mapping[str, int]
) -> None:
    writer, number = event["session_id"], event["data"]["number"]
    assert event["data"] == words(writer, number, event["data"]["size"]), f"{event} was changed"
    if acknowledged is None:  # only the call that a fault cut off may have stored it
        assert number == next_number.get(writer, 0), f"{event} was invented"
    else:
        assert acknowledged == (writer, number), f"{event} has the id of another"


def _check_order_of_each(said: Iterable[Mapping[str, Any]]) -> None:
    numbers = defaultdict(list)
    for event in said:
        if event["data"] != _ERASED:
            numbers[event["session_id"]].append(event["data"]["number"])
    for writer, heard in numbers.items():
        assert heard == sorted(heard), f"{writer} was heard out of order"


def examine(config: APIConfig) -> ledger.Account:
    """Open an outbox, check that it is sound and that its account adds up, and return that."""
    outbox = Outbox(config, check_owner=False)
    try:
        with outbox.snapshot() as connection:
            report = verify.verify(connection)
            book = ledger.read(connection)
    finally:
        outbox.close()
    assert report.ok, report.problems[:5]
    settled = book.delivered + book.pending + book.dead + sum(book.discarded.values())
    assert book.accepted == settled, book
    return book


def logged(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of the application: not the checkpoints of the uploading process."""
    return [event for event in events if event["type"] != "integrity.checkpoint"]


def deliver_the_rest(config: APIConfig) -> list[dict[str, Any]]:
    """Deliver what is pending, and a fresh event after it; return all but the fresh one."""
    received = RecordingDestination()
    with Tracker(config, destination=lambda: received) as tracker:
        fresh = tracker.track(SAID, words("afterwards", 0, 10), session_id="afterwards")
        result = tracker.flush(timeout=60)
    for thread in threading.enumerate():
        if thread.name == "tracker-sync":  # on a slow disk its last step may outlast the close
            thread.join(60)
    assert (result.pending, result.dead) == (0, 0)
    *rest, last = logged(received.events)
    assert last["event_id"] == fresh, "a fresh event gets through, after those before it"
    return rest


def merge(
    received: Sequence[dict[str, Any]], rest: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what a receiver holds that had `received` before a fault and got `rest` after it.

    It drops what it knows: what was sent again because the fault ate the receipt.
    """
    merged: dict[str, dict[str, Any]] = {}
    for event in (*received, *rest):
        merged.setdefault(event["event_id"], event)
    return list(merged.values())


def acknowledged(notes: Path) -> list[dict[str, Any]]:
    """Return what was acknowledged so far, as `judge` takes it."""
    return read_notes(notes)


def print_figures(
    full: bool, capsys: pytest.CaptureFixture[str], fault: str, **figures: object
) -> None:
    """Say, in a full run, what a test of a fault tried and what it cost."""
    if full:
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        say(capsys, f"{fault} | {said}")
