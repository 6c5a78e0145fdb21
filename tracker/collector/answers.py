"""Answers as JSON, and the answer to each kind of error."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tracker.collector.database import StorageError
from tracker.collector.otlp import forms
from tracker.collector.refusal import RefusedError, retry_seconds
from tracker.collector.seals import unpacked
from tracker.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request

logger = logging.getLogger(__name__)

_FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed"}


_AS_STORED = ("data", "context", "trace", "seal")


def json_answer(
    content: object,
    *,
    events: Sequence[Mapping[str, Any]] | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return `content`, which may contain dataclasses, as JSON.

    Args:
        content: Any value that JSON can represent.
        events: Rows to add to an object under the name ``events``.
        status: The HTTP status.
        headers: Additional headers.
    """
    # ASCII: a rejected event's id may contain a lone surrogate, which has to be escaped.
    text = json.dumps(content, separators=(",", ":"), default=_fields, allow_nan=False)
    if events is not None:
        listed = ",".join(_event_json(row) for row in events)
        text = f'{text[:-1]},"events":[{listed}]}}'
    return Response(text, status, headers, media_type="application/json")


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; `asdict` would copy their values."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _event_json(row: Mapping[str, Any]) -> str:
    """Return an event with its ``data`` exactly as stored.

    It is not decoded and encoded again, so no number changes and any depth works. The spaces that
    pad the row of an erased event are left out.
    """
    others = {name: value for name, value in row.items() if name not in _AS_STORED}
    salt, sealed = unpacked(row["seal"])
    secrets = {"salt": salt, "sealed": sealed}
    others |= {name: value.hex() for name, value in secrets.items() if value is not None}
    text = json.dumps(others, separators=(",", ":"))[:-1]
    for name in ("context", "trace"):
        if row[name] is not None:
            text += f',"{name}":{row[name]}'
    return f'{text},"data":{row["data"].rstrip(" ")}}}'


def handle_errors(app: FastAPI) -> None:
    """Answer every error with the protocol's error body, or OTLP's where that is spoken."""
    app.add_exception_handler(RefusedError, _answer_refusal)
    app.add_exception_handler(StorageError, _answer_storage_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(HTTPException, _answer_framework_error)
    app.add_exception_handler(RequestValidationError, _answer_bad_query)
    app.add_exception_handler(ValidationError, _answer_bad_argument)
    app.add_exception_handler(Exception, _answer_defect)


def _error(
    request: Request,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if forms.is_otlp(request):
        return forms.error(request, status, message, headers)
    return json_answer(
        {"error": {"code": code, "message": message}}, status=status, headers=headers
    )


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - Starlette dispatches by this class
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _error(request, error.status, error.code, error.message, headers)


async def _answer_storage_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError)  # noqa: S101 - as above
    logger.error("storage is unavailable: %s", error)
    request.app.state.parts.meter.failed(replicated=not error.not_replicated)
    message = (
        "The database is not replicated as required."
        if error.not_replicated
        else "The collector's database failed."
    )
    if error.in_doubt:
        message += " It is not known whether this request was stored: send it again."
    else:
        message += " Nothing of this request was stored."
    code = "not_replicated" if error.not_replicated else "storage_unavailable"
    return _error(request, 503, code, message, {"Retry-After": str(retry_seconds())})


async def _answer_disconnect(request: Request, _error_: Exception) -> Response:
    return _error(request, 400, "client_disconnected", "The connection ended within the body.")


async def _answer_framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette dispatches by this class
    code = _FRAMEWORK_CODES.get(error.status_code, "http_error")
    return _error(request, error.status_code, code, f"{error.detail}.", error.headers)


async def _answer_bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    problem = error.errors()[0]
    return _error(request, 422, "invalid_query", f"{problem['loc'][-1]}: {problem['msg']}.")


async def _answer_bad_argument(request: Request, error: Exception) -> Response:
    return _error(request, 422, "invalid_query", f"{error}.")


async def _answer_defect(request: Request, _error_: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it.
    return _error(request, 500, "internal_error", "The collector failed; its log says why.")
