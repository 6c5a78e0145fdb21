"""The two forms of OTLP's requests and answers, and its error answer in both.

Nothing of OpenTelemetry is needed for them: a collector without it has to say that it is missing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from fastapi import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

Form = Literal["application/x-protobuf", "application/json"]
PROTOBUF: Form = "application/x-protobuf"
JSON: Form = "application/json"
PATHS = ("/v1/traces", "/v1/logs")
"""Where OTLP is received."""
_MESSAGE_FIELD = b"\x12"  # field 2 of google.rpc.Status, of variable length


def is_otlp(request: Request) -> bool:
    """Return True if a request, and so its answer, is one of OTLP."""
    return request.method == "POST" and request.scope["path"] in PATHS


def form_of(request: Request) -> Form | None:
    """Return the form of a request's body, or None for one that OTLP does not have."""
    named = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return PROTOBUF if named == PROTOBUF else JSON if named == JSON else None


def error(
    request: Request, status: int, message: str, headers: Mapping[str, str] | None
) -> Response:
    """Return an error answer: a ``google.rpc.Status`` in the form of the request.

    A request that is in neither form is answered in JSON. Of all statuses, an exporter repeats 429,
    502, 503 and 504 only; so what is worth a repetition has to be one of these.
    """
    status = 503 if status == 408 else status
    if form_of(request) == PROTOBUF:
        text = message.encode("utf-8", "replace")
        body = _MESSAGE_FIELD + _varint(len(text)) + text
        return Response(body, status, headers, media_type=PROTOBUF)
    return Response(json.dumps({"message": message}), status, headers, media_type=JSON)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
