"""A destination whose failures to start or to send are outcomes, not exceptions."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracker import log
from tracker.delivery.words import one_line
from tracker.once import Once
from tracker.sync.destination import Delivery, Outcome, Rejection, SignedHead

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.destination import Destination, Upload

_CODES = {Outcome.INVALID: "invalid", Outcome.TOO_LARGE: "too_large"}
"""Codes of dead letters whose destination gave none."""


class MadeDestination:
    """Makes a destination and remembers the reason if that fails, to return it as an outcome.

    `prepare` retries, since the cause may disappear: for instance a missing certificate file.
    """

    def __init__(self, make: Callable[[], Destination]) -> None:
        """Use `make` to make the destination."""
        self._make = make
        self._made: Destination | None = None
        self._problem = ""
        self._logged = Once(most=1)

    def prepare(self) -> None:
        """Make the destination, unless there is one."""
        if self._made is None:
            try:
                made = self._make()
                if _is_destination(made):
                    self._made = made
                else:
                    self._problem = (
                        f"the destination cannot be made: the function returned {shown(made)}; "
                        "return an object with the methods send and close"
                    )
            except BaseException as error:  # noqa: BLE001 - the application's; see `reraise`
                reraise(error)
                self._problem = self._describe("the destination cannot be made", error)

    def send(self, upload: Upload) -> Delivery:
        """Send one batch, if there is a destination; see `Destination`."""
        if self._made is None:
            return Delivery(Outcome.UNAVAILABLE, self._problem)
        try:
            delivery = self._made.send(upload)
            problem = _fault(delivery, upload.event_ids)
            if problem:
                return Delivery(Outcome.UNEXPECTED, f"the destination's answer is void: {problem}")
            return _completed(delivery)
        except BaseException as error:  # noqa: BLE001 - the application's, or a bug; see `reraise`
            reraise(error)
            return Delivery(Outcome.UNAVAILABLE, self._describe("the destination failed", error))

    def close(self) -> None:
        """Release connections and files."""
        if self._made is not None:
            try:
                self._made.close()
            except BaseException as error:  # noqa: BLE001 - the application's; see `reraise`
                reraise(error)
                self._describe("the destination cannot be closed", error)

    def _describe(self, what: str, error: BaseException) -> str:
        """Return one line about an error; log its traceback if it may be a bug and is new."""
        line = f"{what}: {type(error).__name__}: {one_line(error)}"
        if self._logged.is_new(line) and not isinstance(error, OSError):
            log.error("%s", line, exc_info=True)
        return line


def reraise(error: BaseException) -> None:
    """Raise what kills a greenlet; anything else that an application's code raises is an outcome.

    ``SystemExit``, a cancellation that leaks out of ``asyncio.run`` or a time limit of its own must
    not end the thread that uploads.
    """
    if type(error).__name__ == "GreenletExit":
        raise error


def _is_destination(made: object) -> bool:
    """Return True for an object with the two methods; a class is none yet, and a coroutine none."""
    return not isinstance(made, (type, Coroutine, Generator)) and all(
        callable(getattr(made, name, None)) for name in ("send", "close")
    )


def _fault(answer: Any, event_ids: Sequence[str]) -> str | None:
    """Return why an answer says nothing about a batch, or None if it does."""
    if not isinstance(answer, Delivery):
        return f"send returned {shown(answer)}; return a tracker.Delivery"
    outcome: object = answer.outcome
    if not isinstance(outcome, Outcome):
        return f"its outcome is {shown(outcome)}; give one of tracker.Outcome"
    seconds: object = answer.retry_after
    if seconds is not None and (type(seconds) is bool or not isinstance(seconds, (int, float))):
        return f"its retry_after is {shown(seconds)}; give a number of seconds, or None"
    highest: object = answer.highest_seq
    if highest is not None and type(highest) is not int:
        return f"its highest_seq is {shown(highest)}; give a seq, or None"
    sent: object = answer.sent_bytes
    if sent is not None and (type(sent) is not int or sent < 0):
        return f"its sent_bytes is {shown(sent)}; give a number of bytes, or None"
    head: Any = answer.witness
    if head is not None and not (
        isinstance(head, SignedHead) and [type(part) for part in head] == [int, str, str]
    ):
        return f"its witness is {shown(head)}; give a SignedHead, or None"
    rejected: Any = answer.rejected
    if not isinstance(rejected, Sequence) or not all(isinstance(r, Rejection) for r in rejected):
        return f"its rejected is {shown(rejected)}; give a list of tracker.Rejection"
    return _fault_in_part(answer, event_ids)


def _fault_in_part(answer: Delivery, event_ids: Sequence[str]) -> str | None:
    """Return what is wrong with the events that an answer names, or None."""
    count: object = answer.count
    if count is not None and (type(count) is not int or not 1 <= count <= len(event_ids)):
        return f"its count is {shown(count)}; give a number of the events sent, or None"
    skipped: Any = answer.skipped
    if not isinstance(skipped, Sequence) or isinstance(skipped, str):
        return f"its skipped is {shown(skipped)}; give a list of event ids"
    left = set(event_ids[: answer.count])
    for verb, named in (("rejects", [r.event_id for r in answer.rejected]), ("skips", skipped)):
        for event_id in named:
            if not isinstance(event_id, str) or event_id not in left:
                shown_id = one_line(repr(event_id))
                return f"it {verb} {shown_id}, which was not sent or is named twice"
            left.remove(event_id)
    return None


def _completed(delivery: Delivery) -> Delivery:
    """Return an answer with texts that can be stored, and that say something."""
    outcome = delivery.outcome
    rejected = [
        Rejection(
            each.event_id,
            _text(each.code) or "rejected",
            _text(each.message) or "the destination gave no reason",
        )
        for each in delivery.rejected
    ]
    cause = _text(delivery.cause)
    if not cause and outcome is not Outcome.DELIVERED:
        cause = f"the destination answered Outcome.{outcome.name} without a cause"
    code = _text(delivery.code) or _CODES.get(outcome, "")
    return replace(
        delivery, cause=cause, code=code, rejected=rejected, warning=_text(delivery.warning)
    )


def _text(given: object) -> str:
    return "" if given is None else one_line(given).strip()


def shown(value: object) -> str:
    """Return what kind of value this is; the value itself may hold anything."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a value of type {type(value).__name__}"
