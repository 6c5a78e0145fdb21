"""Conversion of HTTP answers to `Delivery`, without I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tracker.delivery.outcome import Delivery, Outcome, Rejection, SignedHead
from tracker.delivery.retry_after import read_retry_after
from tracker.delivery.words import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROTOCOL = 1

_COME_BACK = (408, 425, 429)
_MISMATCH = "digest_mismatch"
_TOO_OLD = (
    "the server finds another digest for event {}, which was checked before it was sent: it does "
    "not know how this version makes digests. Update the collector; nothing is given up meanwhile"
)
_MOST_NOTE = 16_384
"""Characters of a signed note: its text, and a hundred signatures."""


def read_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    event_ids: Sequence[str],
) -> Delivery:
    """Return what an answer means for a batch of `event_ids`, by version 1 of the protocol.

    `headers` must ignore the case of names. A body that is truncated or not JSON counts as none.
    Keys and passwords in the answer are masked.
    """
    if status == 200:
        return _read_receipt(body, event_ids)
    code, message = _read_error(body)
    cause = f"the server answered {status}" + (f" {code}: {message}" if code else "")
    retry_after = read_retry_after(headers)
    if status in (400, 422) and code:
        return Delivery(Outcome.INVALID, cause, code)
    if status in (401, 403):
        return Delivery(
            Outcome.REFUSED, f"the server refuses the API key ({cause})", code, (), retry_after
        )
    if status == 413:
        return Delivery(Outcome.TOO_LARGE, cause, code or "too_large")
    if status in _COME_BACK or 500 <= status <= 599:
        return Delivery(Outcome.UNAVAILABLE, cause, code, (), retry_after)
    if 300 <= status <= 399:
        cause += f" (redirect to {one_line(headers.get('location', '?'))}, not followed)"
    return Delivery(Outcome.UNEXPECTED, cause, code, (), retry_after)


def _read_receipt(body: bytes, event_ids: Sequence[str]) -> Delivery:
    receipt = read_object(body)
    problem = "it is not a JSON object" if receipt is None else _fault(receipt, event_ids)
    if receipt is None or problem:
        return Delivery(
            Outcome.UNEXPECTED,
            f"the server answered 200 without a valid receipt: {problem}. "
            "Is something else answering at base_url?",
        )
    rejected = [
        Rejection(
            item["event_id"],
            one_line(item.get("code") or "rejected"),
            one_line(item.get("message") or ""),
        )
        for item in receipt["rejected"]
    ]
    for rejection in rejected:
        if rejection.code == _MISMATCH:
            return Delivery(Outcome.UNEXPECTED, _TOO_OLD.format(rejection.event_id), _MISMATCH)
    warning, highest_seq = receipt.get("warning"), receipt.get("highest_seq")
    return Delivery(
        Outcome.DELIVERED,
        rejected=rejected,
        warning=one_line(warning) if isinstance(warning, str) else "",
        highest_seq=highest_seq if type(highest_seq) is int else None,
        witness=_read_head(receipt.get("witness")),
    )


def _read_head(value: object) -> SignedHead | None:
    """Return the signed head in a receipt; None if it has none, or not as the protocol says."""
    if not isinstance(value, dict):
        return None
    size, root, note = (value.get(name) for name in SignedHead._fields)
    if type(size) is not int or not 0 <= size < 2**63 or not isinstance(note, str):
        return None
    if not isinstance(root, str) or not re.fullmatch("[0-9a-f]{64}", root):
        return None
    return SignedHead(size, root, note) if len(note) <= _MOST_NOTE else None


def _fault(receipt: dict[str, Any], event_ids: Sequence[str]) -> str | None:
    """Return why a receipt is invalid for this batch, or None if it is valid."""
    accepted, duplicates = receipt.get("accepted"), receipt.get("duplicates")
    rejected = receipt.get("rejected")
    if type(receipt.get("protocol")) is not int or receipt["protocol"] != PROTOCOL:
        return f"its protocol is not {PROTOCOL}"
    if (receipt.get("first_event_id"), receipt.get("last_event_id")) != (
        event_ids[0],
        event_ids[-1],
    ):
        return "it is for another batch"
    if type(accepted) is not int or type(duplicates) is not int or min(accepted, duplicates) < 0:
        return "its counts are missing"
    if not isinstance(rejected, list):
        return "its list of rejected events is missing"
    if accepted + duplicates + len(rejected) != len(event_ids):
        return "its counts do not add up to the events sent"
    named = [item.get("event_id") if isinstance(item, dict) else None for item in rejected]
    if not all(isinstance(event_id, str) for event_id in named) or len(set(named)) != len(named):
        return "its rejected events are not named"
    if not set(named) <= set(event_ids):
        return "it rejects events that were not sent"
    return None


def _read_error(body: bytes) -> tuple[str, str]:
    """Return the code and message of an error body; empty texts if it is not one."""
    answer = read_object(body)
    error = answer.get("error") if answer else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error["code"]:
        return "", ""
    return one_line(error["code"]), one_line(error.get("message", ""))


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body; None if it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
