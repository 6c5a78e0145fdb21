"""The checks of ``tracker-sync demo``: pure functions from evidence to a result."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.events import CONVERSATION_STARTED, from_wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tracker.outbox import Account, IntegrityReport

_MOST_SHOWN = 3


class Check(NamedTuple):
    """A claim, whether it holds, and figures about it."""

    claim: str
    held: bool
    figures: str


class Acknowledged(NamedTuple):
    """A logging call that returned, and its result."""

    call: str
    returned: str

    @property
    def key(self) -> tuple[str, str]:
        """Key of its event: ``start_conversation`` returns a session id, others an event id."""
        return ("session" if self.call == "start_conversation" else "event", self.returned)


class StoredEvent(NamedTuple):
    """An event in the outbox."""

    seq: int
    event_id: str
    type: str
    session_id: str | None
    digest: str
    state: str

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Every `Acknowledged.key` of this event."""
        return _keys(self.event_id, self.type, self.session_id)


@dataclass(frozen=True)
class Evidence:
    """The evidence for the checks, after all events were delivered.

    Attributes:
        acknowledged: The agent's record, in order.
        received: The collector's events, in order of arrival.
        reports: The collector's reports on outboxes.
        stored: The outbox's events, by seq.
        outbox_id: The outbox's id.
        account: The outbox's loss account.
        integrity: Result of the outbox's verification.
    """

    acknowledged: Sequence[Acknowledged]
    received: Sequence[Mapping[str, Any]]
    reports: Sequence[Mapping[str, Any]]
    stored: Sequence[StoredEvent]
    outbox_id: str
    account: Account
    integrity: IntegrityReport


def read_record(path: Path) -> list[Acknowledged]:
    """Return the agent's record.

    SIGKILL may leave an incomplete last line: the call had returned, but was not acknowledged. That
    line is removed, so that the next run of the agent begins a new one.
    """
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        with path.open("r+b") as file:
            file.truncate(len(whole) + 1 if whole else 0)
    return [Acknowledged(**json.loads(line)) for line in whole.splitlines()]


def kept(acknowledged: Sequence[Acknowledged], stored: Iterable[StoredEvent]) -> Check:
    """Check that the outbox has every acknowledged event, right after the kill."""
    found = Counter(key for event in stored for key in event.keys)
    missing = [entry for entry in acknowledged if found[entry.key] != 1]
    return Check(
        "the outbox holds every acknowledged event",
        bool(acknowledged) and not missing,
        _missing(len(acknowledged), missing),
    )


def check_all(evidence: Evidence) -> list[Check]:
    """Return the results of all checks after all events were delivered."""
    return [
        arrived_once(evidence.acknowledged, evidence.received),
        in_order(evidence.acknowledged, evidence.received),
        same_contents(evidence.received, evidence.stored),
        nothing_missing(evidence.reports, evidence.outbox_id, len(evidence.stored)),
        sound(evidence.integrity),
        nothing_pending(evidence.account),
        adds_up(evidence.account, evidence.stored),
    ]


def arrived_once(
    acknowledged: Sequence[Acknowledged], received: Sequence[Mapping[str, Any]]
) -> Check:
    """Check that the collector has each acknowledged event, once, and no others.

    There may be one that was not acknowledged: it was on disk when SIGKILL arrived, and its call
    had not returned or was not noted yet. The agent has one thread and is killed once.
    """
    found = Counter(key for event in received for key in _received_keys(event))
    missing = [entry for entry in acknowledged if not found[entry.key]]
    twice = sum(count > 1 for count in found.values())
    noted = {entry.key for entry in acknowledged}
    others = sum(noted.isdisjoint(_received_keys(event)) for event in received)
    figures = _missing(len(acknowledged), missing)
    if twice:
        figures += f"; {twice} arrived more than once"
    if others:
        figures += f"; and {others} whose call was killed" if others == 1 else f"; {others} others"
    held = bool(acknowledged) and not missing and not twice and others <= 1
    return Check("every acknowledged event arrived exactly once", held, figures)


def in_order(acknowledged: Sequence[Acknowledged], received: Sequence[Mapping[str, Any]]) -> Check:
    """Check that seq, arrival and acknowledgement have the same order."""
    seqs = [event["seq"] for event in received]
    seq_of = {key: event["seq"] for event in received for key in _received_keys(event)}
    by_record = [seq_of[entry.key] for entry in acknowledged if entry.key in seq_of]
    wrong = _first_descent(seqs) or _first_descent(by_record)
    figures = f"seq 1 to {max(seqs)}" if seqs else "nothing arrived"
    if wrong:
        figures = f"seq {wrong[1]} follows seq {wrong[0]}"
    return Check("they arrived in the order of the calls", bool(by_record) and not wrong, figures)


def same_contents(received: Sequence[Mapping[str, Any]], stored: Sequence[StoredEvent]) -> Check:
    """Check that the collector's events are those of the outbox, by recomputed digests."""
    here = {event.event_id: event.digest for event in stored}
    there = {event["event_id"]: canonical.digest_of(*from_wire(event)) for event in received}
    different = {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
    different |= {e["event_id"] for e in received if e["digest"] != there[e["event_id"]]}
    figures = f"{len(there)} digests, recomputed from the received events"
    if different:
        figures = f"{len(different)} differ, among them {_some(different)}"
    return Check("their contents are those in the outbox", bool(here) and not different, figures)


def nothing_missing(reports: Sequence[Mapping[str, Any]], outbox_id: str, stored: int) -> Check:
    """Check the collector's report on the outbox: no seq missing or reused, an intact chain."""
    claim = "the collector reports no missing seq and an intact chain"
    if [report["outbox_id"] for report in reports] != [outbox_id]:
        return Check(claim, False, f"it reports on {len(reports)} outboxes, not on this one alone")
    (report,) = reports
    held = (
        report["events"] == report["highest_seq"] == stored > 0
        and not report["missing"]
        and not report["reused_seqs"]
        and report["chain"] == "intact"
        and report["chain_breaks_at_seq"] is None
    )
    figures = f"{report['events']} events, highest seq {report['highest_seq']}"
    if not held:
        figures += (
            f" ({stored} in the outbox), missing {report['missing']}, "
            f"reused {report['reused_seqs']}, chain {report['chain']}"
        )
    return Check(claim, held, figures)


def sound(integrity: IntegrityReport) -> Check:
    """Check that the outbox's verification found no problem."""
    held = integrity.ok and integrity.events == integrity.last_seq > 0
    figures = f"{integrity.events} events verified"
    if integrity.problems:
        figures += f"; {integrity.problems[0].message}"
    return Check("the outbox's digests, chain and seqs are sound", held, figures)


def nothing_pending(account: Account) -> Check:
    """Check that nothing is pending."""
    return Check(
        "nothing is pending in the outbox", account.pending == 0, f"{account.pending} pending"
    )


def adds_up(account: Account, stored: Sequence[StoredEvent]) -> Check:
    """Check that the loss account matches the outbox's rows and has no loss."""
    rows = Counter(event.state for event in stored)
    discarded = sum(account.discarded.values())
    held = (
        account.accepted == len(stored)
        and account.accepted == account.delivered + account.pending + account.dead + discarded
        and account.delivered == rows["delivered"]
        and account.pending == rows["pending"]
        and account.dead == rows["dead"] == 0
        and discarded == 0
    )
    figures = (
        f"{account.accepted} accepted = {account.delivered} delivered + {account.pending} pending "
        f"+ {account.dead} dead + {discarded} discarded"
    )
    if not held:
        figures += f"; the rows say {dict(rows)}"
    return Check("the loss account adds up, without a loss", held, figures)


def _keys(event_id: str, type: str, session_id: str | None) -> tuple[tuple[str, str], ...]:
    if type == CONVERSATION_STARTED and session_id is not None:
        return (("event", event_id), ("session", session_id))
    return (("event", event_id),)


def _received_keys(event: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return _keys(event["event_id"], event["type"], event["session_id"])


def _first_descent(seqs: Sequence[int]) -> tuple[int, int] | None:
    """Return the first two neighbours that are not in ascending order."""
    pairs = itertools.pairwise(seqs)
    return next(((before, after) for before, after in pairs if after <= before), None)


def _missing(total: int, missing: Sequence[Acknowledged]) -> str:
    figures = f"{total - len(missing)} of {total}"
    if missing:
        figures += f"; missing: {_some(entry.returned for entry in missing)}"
    return figures


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    dots = ", ..." if len(ordered) > _MOST_SHOWN else ""
    return ", ".join(ordered[:_MOST_SHOWN]) + dots
