"""The collector's HTTP side: `create_app` and its routes."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import RowMapping
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tracker._version import __version__
from tracker.collector import integrity
from tracker.collector.batch import PROTOCOL, Batch, parse_batch
from tracker.collector.conversation import summarise
from tracker.collector.keys import ApiKey, Keys
from tracker.collector.limits import (
    RateLimiter,
    check_content_length,
    check_encoding,
    decode_body,
    read_body,
)
from tracker.collector.refusal import RefusedError, client_mismatch, invalid_key
from tracker.collector.settings import Settings
from tracker.collector.store import StorageError, Store, Stored

logger = logging.getLogger(__name__)

_STORAGE_RETRY_SECONDS = 5
_MAX_ID = 2**63 - 1
_FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed"}


class _AnyText(Convertor[str]):
    """A path's whole rest: Starlette's own ``path`` stops at a newline, session ids do not."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anytext", _AnyText())


@dataclass(frozen=True)
class _Parts:
    """What the routes work with; stands in ``app.state.parts``."""

    store: Store
    keys: Keys
    limiter: RateLimiter
    settings: Settings


router = APIRouter()


def create_app(store: Store, settings: Settings) -> FastAPI:
    """Return the collector as an ASGI application.

    The caller owns `store` and closes it after the server has stopped. Everything that touches
    the database or takes time runs in worker threads, never on the event loop.
    """
    app = FastAPI(
        title="tracker-collector",
        version=__version__,
        openapi_url=None,
        redirect_slashes=False,  # clients never follow a redirect
    )
    app.state.parts = _Parts(
        store, Keys(store), RateLimiter(settings.requests_per_minute), settings
    )
    app.include_router(router)
    app.add_exception_handler(RefusedError, _answer_refusal)
    app.add_exception_handler(StorageError, _answer_storage_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(HTTPException, _answer_framework_error)
    app.add_exception_handler(RequestValidationError, _answer_bad_query)
    app.add_exception_handler(Exception, _answer_defect)
    return app


async def _authenticate(request: Request) -> ApiKey:
    """Return the key that a request carries, before any of its body is read."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise invalid_key()
    found = await run_in_threadpool(_parts(request).keys.find, key.strip())
    if found is None:
        raise invalid_key()
    if _header_text(request, "x-client-id") != found.client_id:
        raise client_mismatch("X-Client-ID is not the client that this API key was made for.")
    return found


Caller = Annotated[ApiKey, Depends(_authenticate)]


@router.get("/v1/ping")
async def ping(_caller: Caller) -> Response:
    """Answer 200 to a valid key."""
    return _json({"protocol": PROTOCOL})


@router.post("/v1/events")
async def receive_events(request: Request, caller: Caller) -> Response:
    """Store a batch and answer with its receipt."""
    parts = _parts(request)
    wait = parts.limiter.take(caller.id)
    if wait > 0:
        raise RefusedError(
            429,
            "rate_limited",
            f"More than {parts.settings.requests_per_minute:,} requests a minute with this key.",
            retry_after=max(1, math.ceil(wait)),
        )
    encoding = check_encoding(request.headers.get("content-encoding"))
    limit = parts.settings.max_body_bytes
    check_content_length(request.headers.get("content-length"), limit)
    body = await read_body(request.stream(), limit, parts.settings.body_idle_seconds)
    receipt = await run_in_threadpool(_take_in, parts, body, encoding, caller.client_id)
    return _json(receipt)


@router.get("/v1/events")
def list_events(
    request: Request,
    caller: Caller,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Answer with a page of the client's events in the order they were stored."""
    parts = _parts(request)
    rows, following = parts.store.events_after(
        caller.client_id, after, limit, parts.settings.max_page_bytes
    )
    return _json({"next": following}, events=rows)


@router.get("/v1/conversations/{session_id:anytext}")
def show_conversation(request: Request, caller: Caller, session_id: str) -> Response:
    """Answer with one session: what it is as a whole, and its events."""
    rows = _parts(request).store.conversation(caller.client_id, session_id)
    if not rows:
        raise RefusedError(404, "not_found", "No event of this client has this session_id.")
    return _json(asdict(summarise(session_id, rows)), events=rows)


@router.get("/v1/outboxes")
def list_outboxes(request: Request, caller: Caller) -> Response:
    """Answer with what each of the client's outboxes proves to be complete and unchanged."""
    store = _parts(request).store
    outboxes = [
        {
            "outbox_id": outbox_id,
            "client_id": caller.client_id,
            **asdict(integrity.report(store.integrity_rows(caller.client_id, outbox_id))),
        }
        for outbox_id in store.outbox_ids(caller.client_id)
    ]
    return _json({"outboxes": outboxes})


@router.get("/v1/outboxes/{outbox_id}/chain")
def show_chain(
    request: Request,
    caller: Caller,
    outbox_id: str,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=2, le=4000)] = 4000,
) -> Response:
    """Answer with digests and chain values of an outbox's next events after a seq, by seq."""
    rows = _parts(request).store.chain_page(caller.client_id, outbox_id, after, limit)
    return _json({"events": [dict(row) for row in rows]})


@router.get("/healthz")
async def health() -> Response:
    """Answer 200 while the process runs."""
    return _json({"status": "ok"})


@router.get("/readyz")
def readiness(request: Request) -> Response:
    """Answer 200 if the database answers, 503 if not."""
    _parts(request).store.check()
    return _json({"status": "ready"})


def _take_in(parts: _Parts, body: bytes, encoding: str, client_id: str) -> dict[str, Any]:
    decoded = decode_body(body, encoding, parts.settings.max_decoded_bytes)
    batch = parse_batch(decoded, client_id)
    stored = parts.store.store_batch(batch, time.time_ns() // 1_000_000)
    return _receipt(batch, stored)


def _receipt(batch: Batch, stored: Stored) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "first_event_id": batch.first_event_id,
        "last_event_id": batch.last_event_id,
        "accepted": stored.accepted,
        "duplicates": stored.duplicates,
        "rejected": [rejection._asdict() for rejection in batch.rejected],
    }


def _parts(request: Request) -> _Parts:
    parts: _Parts = request.app.state.parts
    return parts


def _header_text(request: Request, name: str) -> str | None:
    """Return a header as the client meant it: UTF-8 if it is that, otherwise Latin-1."""
    header = request.headers.get(name)
    if header is None:
        return None
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return header


def _json(
    content: dict[str, Any],
    *,
    events: list[RowMapping] | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    # ASCII: a rejected event's id may hold a lone surrogate, which only an escape can carry.
    text = json.dumps(content, separators=(",", ":"))
    if events is not None:
        listed = ",".join(_event_json(row) for row in events)
        text = f'{text[:-1]},"events":[{listed}]}}'
    return Response(text, status, headers, media_type="application/json")


def _event_json(row: RowMapping) -> str:
    """Return an event with its ``data`` exactly as stored.

    It is not decoded and encoded again, so no number changes and no depth is too much. The spaces
    that fill an erased event's row are left out.
    """
    others = {name: value for name, value in row.items() if name != "data"}
    return f'{json.dumps(others, separators=(",", ":"))[:-1]},"data":{row["data"].rstrip(" ")}}}'


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    return _json({"error": {"code": code, "message": message}}, status=status, headers=headers)


async def _answer_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - Starlette dispatches by this class
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _error(error.status, error.code, error.message, headers)


async def _answer_storage_error(_request: Request, error: Exception) -> Response:
    logger.error("storage is unavailable: %s", error, exc_info=error)
    return _error(
        503,
        "storage_unavailable",
        "The collector cannot reach its database; nothing of this request was stored.",
        {"Retry-After": str(_STORAGE_RETRY_SECONDS)},
    )


async def _answer_nobody(_request: Request, _error_: Exception) -> Response:
    return _error(400, "client_disconnected", "The connection ended within the body.")


async def _answer_framework_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette dispatches by this class
    code = _FRAMEWORK_CODES.get(error.status_code, "http_error")
    return _error(error.status_code, code, f"{error.detail}.", error.headers)


async def _answer_bad_query(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    return _error(422, "invalid_query", f"{problem['loc'][-1]}: {problem['msg']}.")


async def _answer_defect(_request: Request, _error_: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it.
    return _error(500, "internal_error", "The collector failed; its log says why.")
