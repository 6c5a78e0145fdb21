"""What an OTLP receiver's answer means for what was sent, without I/O.

The specification lets a client retry 429, 502, 503 and 504 only, and never a partial success. Real
receivers answer 500 to one span that they cannot store, 422 to a missing header, and 404 to a wrong
project. So an answer that seems to condemn what was sent is only `Outcome.INVALID` here: the
destination finds out whether it is a span's fault or everything is refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tracker.delivery.outcome import Delivery, Outcome
from tracker.delivery.retry_after import read_retry_after
from tracker.delivery.words import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker.otlp.encode import Signal

    Response = ExportTraceServiceResponse | ExportLogsServiceResponse

REJECTED = "otlp_rejected"
"""Code of the dead letters of a partial success."""
_PROTOBUF = ("application/x-protobuf", "application/protobuf")
_JSON = "application/json"
_OF_LANGFUSE = {"message": "OK"}
"""What Langfuse answers, and nothing else is known to, in place of an empty response."""
_TAKEN = (200, 201, 202, 204)
"""Statuses of a success: OTLP has 200, Fluent Bit 201, Grafana Cloud 204 for logs."""
_UNEXPECTED = (404, 405, 407, 415)
_COME_BACK = (408, 425, 429)
_MOST_WORDS = 1_000


class Reading(NamedTuple):
    """An answer that was read.

    Attributes:
        delivery: What it means.
        refused: How many of the spans or records a partial success refuses.
        note: What the receiver says though it has stored everything, or empty.
    """

    delivery: Delivery
    refused: int = 0
    note: str = ""


def read_answer(signal: Signal, status: int, headers: Mapping[str, str], body: bytes) -> Reading:
    """Return what an answer means. `headers` must ignore the case of names."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status in _TAKEN:
        is_whole = status == 204 or _says_its_length(headers)
        return _read_success(signal, status, kind, body, is_whole=is_whole)
    said = f"the server answered {status}{_words(kind, body)}"
    code = f"http_{status}"
    retry_after = read_retry_after(headers)
    if status in (401, 403):
        return Reading(
            Delivery(
                Outcome.REFUSED, f"the server refuses the key or headers ({said})", code, (),
                retry_after,
            )
        )  # fmt: skip
    if status in _COME_BACK or (status >= 502 and status <= 599):
        return Reading(Delivery(Outcome.UNAVAILABLE, said, code, (), retry_after))
    if status in _UNEXPECTED or status < 400 or status > 599:
        if 300 <= status < 400:
            said += f" (redirect to {one_line(headers.get('location', '?'))}, not followed)"
        return Reading(Delivery(Outcome.UNEXPECTED, said, code, (), retry_after))
    outcome = Outcome.TOO_LARGE if status == 413 else Outcome.INVALID
    return Reading(Delivery(outcome, said, code, (), retry_after))


def _says_its_length(headers: Mapping[str, str]) -> bool:
    """Return True if an answer without a body has a head that was not cut off."""
    return "content-length" in headers or "transfer-encoding" in headers


def _read_success(
    signal: Signal, status: int, kind: str, body: bytes, *, is_whole: bool
) -> Reading:
    problem = _fault(kind, body) or ("" if body or is_whole else "it was cut off")
    response: Response
    response = ExportTraceServiceResponse() if signal == "traces" else ExportLogsServiceResponse()
    if not problem and not _fill(response, kind, body):
        problem = "its body is none of OTLP's"
    if problem:
        cause = (
            f"the server answered {status}, but not as an OTLP receiver does: {problem}. Is "
            "something else answering at base_url?"
        )
        return Reading(Delivery(Outcome.UNEXPECTED, cause))
    if isinstance(response, ExportTraceServiceResponse):
        refused = response.partial_success.rejected_spans
    else:
        refused = response.partial_success.rejected_log_records
    said = one_line(response.partial_success.error_message)
    if refused <= 0:
        return Reading(Delivery(Outcome.DELIVERED), 0, said)
    cause = f"the server rejected {refused} of what was sent: {said or 'it gives no reason'}"
    return Reading(Delivery(Outcome.INVALID, cause, REJECTED), refused)


def _fault(kind: str, body: bytes) -> str:
    """Return why a 200 is no answer of OTLP, or an empty text."""
    if kind in _PROTOBUF or kind == _JSON or (not body and not kind.startswith("text/html")):
        return ""
    return f"its content type is {one_line(kind) or 'missing'}"


def _fill(response: Response, kind: str, body: bytes) -> bool:
    """Read a body into `response`; return False if it is no such response.

    Receivers are to answer in the form of the request, which is protobuf. Some answer in JSON. What
    any service may say, such as an error with a status of 200, is not taken for it.
    """
    try:
        if kind != _JSON or not body:
            response.ParseFromString(body)
            return True
        said = json.loads(body)
        if not isinstance(said, dict):
            return False
        ParseDict({} if said == _OF_LANGFUSE else said, response)
    except (DecodeError, ParseError, ValueError, TypeError, RecursionError):
        return False
    return True


def _words(kind: str, body: bytes) -> str:
    """Return what a server says in an error's body, unless that is a page for people."""
    if not body or kind.startswith("text/html"):
        return ""
    words = " ".join(one_line(body[:_MOST_WORDS].decode("utf-8", "replace")).split())
    return f": {words}" if words else ""
