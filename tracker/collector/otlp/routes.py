"""Routes that receive spans and log records over OTLP."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

import time
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from tracker import clock
from tracker.collector.access import Parts, Sender, parts_of
from tracker.collector.ingest import received
from tracker.collector.keys import ApiKey
from tracker.collector.limits import decode_body
from tracker.collector.models import OTLP_ERRORS, LogsAnswer, TracesAnswer, otlp_body
from tracker.collector.otlp.forms import PROTOBUF, Form, form_of
from tracker.collector.refusal import RefusedError

router = APIRouter(tags=["otlp"], responses=OTLP_ERRORS)

_ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-protobuf": {}}}}


@router.post(
    "/v1/traces",
    response_model=TracesAnswer,
    responses=_ANSWER,
    openapi_extra=otlp_body("ExportTraceServiceRequest"),
)
async def receive_traces(request: Request, sender: Sender) -> Response:
    """Store the spans of an OTLP request as ``otel.span`` events."""
    return await _receive(request, sender, "traces")


@router.post(
    "/v1/logs",
    response_model=LogsAnswer,
    responses=_ANSWER,
    openapi_extra=otlp_body("ExportLogsServiceRequest"),
)
async def receive_logs(request: Request, sender: Sender) -> Response:
    """Store the log records of an OTLP request as ``otel.log`` events."""
    return await _receive(request, sender, "logs")


async def _receive(request: Request, sender: ApiKey, what: Literal["traces", "logs"]) -> Response:
    form = form_of(request)
    if form is None:
        raise RefusedError(
            415,
            "unsupported_type",
            "Content-Type must be application/x-protobuf or application/json.",
        )
    try:
        from tracker.collector.otlp import signals
    except ImportError:  # an optional extra
        raise RefusedError(
            501,
            "otlp_missing",
            "This collector does not speak OTLP: it needs the extra "
            "'agent-tracking-sdk[collector,otel]'.",
        ) from None
    signal = signals.TRACES if what == "traces" else signals.LOGS
    answer = await received(
        request, sender, partial(_store, form=form, signal=signal), parts_of(request).conversions
    )
    return Response(answer, media_type=form)


def _store(
    parts: Parts, body: bytes, encoding: str, client_id: str, *, form: Form, signal: Any
) -> bytes:
    """Store what a body carries and return the body of the answer."""
    from google.protobuf import json_format

    from tracker.collector.otlp import body as bodies
    from tracker.collector.otlp.events import Gathering
    from tracker.collector.otlp.signals import response

    now_ms, begun = time.time_ns() // 1_000_000, clock.monotonic()
    gathering = Gathering(client_id, signal, now_ms)
    decoded = decode_body(body, encoding, parts.settings.max_decoded_bytes)
    gathering.add(bodies.items(decoded, form, signal))
    batch = gathering.batch()
    if batch.events or batch.rejected:
        stored = parts.store.store_batch(batch, now_ms)
        seconds = clock.monotonic() - begun
        parts.meter.stored(stored.accepted, stored.duplicates, len(batch.rejected), seconds)
    answer = response(signal, gathering.rejected, gathering.message)
    if form == PROTOBUF:
        return bytes(answer.SerializeToString())
    return str(json_format.MessageToJson(answer, indent=None)).encode()
