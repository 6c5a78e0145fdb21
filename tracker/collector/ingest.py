"""Routes that receive events."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from tracker import clock
from tracker.collector.access import Caller, Parts, parts_of, sender_of
from tracker.collector.answers import json_answer
from tracker.collector.batch import PROTOCOL
from tracker.collector.gate import Gate
from tracker.collector.keys import ApiKey
from tracker.collector.limits import check_content_length, check_encoding, read_body
from tracker.collector.models import BATCH, ERRORS, INGEST_ERRORS, Ping, Receipt
from tracker.collector.receiving import receipt_of, receive
from tracker.collector.refusal import RefusedError

T = TypeVar("T")

router = APIRouter(tags=["events"], responses=ERRORS)


@router.get("/v1/ping", response_model=Ping)
async def ping(_caller: Caller) -> Response:
    """Answer 200 to a valid key."""
    return json_answer({"protocol": PROTOCOL})


@router.post("/v1/events", response_model=Receipt, responses=INGEST_ERRORS, openapi_extra=BATCH)
async def receive_events(request: Request) -> Response:
    """Store a batch and answer with its receipt."""
    receipt = await received(request, await sender_of(request), _store_body, first=_store_together)
    return json_answer(receipt)


async def received(
    request: Request,
    sender: ApiKey,
    store: Callable[[Parts, bytes, str, str], T],
    *gates: Gate,
    first: Callable[[Parts, bytes, str, str], Awaitable[T | None]] | None = None,
) -> T:
    """Read a request's body within the limits of its key, and return what `store` makes of it.

    Args:
        request: The request.
        sender: Its key.
        store: Called in a worker thread with the parts, the body as it was sent, its encoding and
            the client, when it is the client's turn.
        gates: Further limits of how many run at the same time.
        first: Called before; if it returns something, that is the result.

    Raises:
        RefusedError: if a limit is exceeded.
    """
    parts = parts_of(request)
    wait = parts.limiter.take(sender.id)
    if wait > 0:
        raise RefusedError(
            429,
            "rate_limited",
            f"More than {parts.settings.requests_per_minute:,} requests per minute with this key.",
            retry_after=max(1, math.ceil(wait)),
        )
    settings, client_id = parts.settings, str(sender.client_id)
    encoding = check_encoding(request.headers.get("content-encoding"))
    check_content_length(request.headers.get("content-length"), settings.max_body_bytes)
    with parts.bodies.held(client_id) as count:
        body = await read_body(
            _counted(request.stream(), count),
            settings.max_body_bytes,
            settings.body_idle_seconds,
            settings.body_seconds,
        )
        if first is not None:
            result = await first(parts, body, encoding, client_id)
            if result is not None:
                return result
        async with contextlib.AsyncExitStack() as passed:
            for gate in (*gates, parts.batches):
                await passed.enter_async_context(gate.passing(client_id))
            return await run_in_threadpool(store, parts, body, encoding, client_id)


async def _counted(
    chunks: AsyncIterator[bytes], count: Callable[[int], None]
) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        count(len(chunk))
        yield chunk


async def _store_together(
    parts: Parts, body: bytes, encoding: str, client_id: str
) -> dict[str, Any] | None:
    return await parts.together.receipt(body, encoding, client_id)


def _store_body(parts: Parts, body: bytes, encoding: str, client_id: str) -> dict[str, Any]:
    begun = clock.monotonic()
    batch, stored = receive(parts.store, body, encoding, client_id, parts.settings)
    seconds = clock.monotonic() - begun
    parts.meter.stored(stored.accepted, stored.duplicates, len(batch.rejected), seconds)
    return receipt_of(batch, stored)
