"""The digests and chain values that the collector has of an outbox, page by page."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tracker.errors import TrackerError
from tracker.outbox import Held, is_seq
from tracker.sync.destination import Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker.discards import Range
    from tracker.sync.http import HTTPDestination

_REPORTS = 10
"""Outboxes in one answer, which would have a megabyte otherwise."""
_LAST_MS = 2**63 - 1
"""No later time is asked for: a damaged row may have any."""


class CollectorError(TrackerError):
    """The collector did not answer, or not as expected."""


class Collector:
    """Reads what a collector has of one outbox. The caller owns the destination."""

    def __init__(self, destination: HTTPDestination, outbox_id: str) -> None:
        self._destination = destination
        self._outbox_id = outbox_id
        self._path = f"/v1/outboxes/{quote(outbox_id, safe='')}/chain"

    def after(self, seq: int) -> list[Held]:
        """Return the next events after `seq`, ascending; none at the end.

        Raises:
            CollectorError: if the collector does not answer, or not as expected.
        """
        answer = self._read(f"{self._path}?after={seq}")
        try:
            held = [_held(item) for item in answer["events"]]
        except (KeyError, TypeError) as error:
            raise CollectorError("the collector's answer is not a page of a chain") from error
        if any(b.seq < a.seq for a, b in pairwise(held)) or (held and held[0].seq <= seq):
            raise CollectorError("the collector's page of a chain is not in order of seq")
        return held

    def elsewhere(self, digests: Mapping[str, str], first_ms: int, last_ms: int) -> set[str]:
        """Return which events it has under another outbox of this client, with the same digest.

        Raises:
            CollectorError: if the collector does not answer, or not as expected.
        """
        found: set[str] = set()
        after: object = "0"
        until = min(last_ms + 1, _LAST_MS)
        while after is not None and len(found) < len(digests):
            answer = self._read(f"/v1/events?since={first_ms}&until={until}&after={after}")
            try:
                found.update(
                    event["event_id"]
                    for event in answer["events"]
                    if event["outbox_id"] != self._outbox_id
                    and digests.get(event["event_id"]) == event["digest"]
                )
                after = answer["next"]
            except (KeyError, TypeError) as error:
                raise CollectorError("the collector's answer is no page of events") from error
        return found

    def given_up(self) -> list[Range]:
        """Return the seqs that were refused, or that the outbox said it had discarded.

        Raises:
            CollectorError: if the collector does not answer, or not as expected.
        """
        after: object = "0"
        while after is not None:
            answer = self._read(f"/v1/outboxes?limit={_REPORTS}&after={after}")
            try:
                for report in answer["outboxes"]:
                    if report["outbox_id"] == self._outbox_id:
                        listed = [*report["refused"], *report.get("discarded", ())]
                        return [(int(first), int(last)) for first, last in listed]
                after = answer["next"]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise CollectorError("the collector's answer is no list of outboxes") from error
        return []

    def _read(self, path: str) -> dict[str, Any]:
        answer = self._destination.read(path)
        if isinstance(answer, Delivery):
            raise CollectorError(f"the collector did not answer with its events: {answer.cause}")
        return answer


def _held(item: dict[str, Any]) -> Held:
    held = Held(item["seq"], item["event_id"], item["digest"], item["chain"])
    if not is_seq(held.seq) or not all(isinstance(text, str) for text in held[1:]):
        raise TypeError("a field has the wrong type")
    return held
