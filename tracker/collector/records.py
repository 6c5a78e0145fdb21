"""Routes that hand out events as they were received, and say whether any is missing."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from tracker.collector import integrity
from tracker.collector.access import Client, parts_of
from tracker.collector.answers import json_answer
from tracker.collector.conversation import summarise
from tracker.collector.models import ERRORS, ChainPage, EventPage, Outboxes, Session
from tracker.collector.refusal import RefusedError

_MAX_ID = 2**63 - 1


class _AnyText(Convertor[str]):
    """A path's whole rest: Starlette's own ``path`` stops at a newline, session ids do not."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anytext", _AnyText())


router = APIRouter(tags=["events"], responses=ERRORS)


@router.get("/v1/events", response_model=EventPage)
def list_events(
    request: Request,
    client_id: Client,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Answer with a page of the client's events in the order they were stored."""
    parts = parts_of(request)
    rows, following = parts.store.events_after(
        client_id, after, limit, parts.settings.max_page_bytes
    )
    return json_answer({"next": following}, events=rows)


@router.get("/v1/conversations/{session_id:anytext}", response_model=Session)
def show_conversation(request: Request, client_id: Client, session_id: str) -> Response:
    """Answer with one session: what it is as a whole, and its events."""
    # A NUL: PostgreSQL cannot even be asked for one.
    known = "\0" not in session_id
    rows = parts_of(request).store.conversation(client_id, session_id) if known else []
    if not rows:
        raise RefusedError(404, "not_found", "No event of this client has this session_id.")
    return json_answer(asdict(summarise(session_id, rows)), events=rows)


@router.get("/v1/outboxes", response_model=Outboxes)
def list_outboxes(request: Request, client_id: Client) -> Response:
    """Answer with what each of the client's outboxes proves to be complete and unchanged."""
    store = parts_of(request).store
    outboxes = [
        {
            "outbox_id": outbox_id,
            "client_id": client_id,
            **asdict(integrity.report(store.integrity_rows(client_id, outbox_id))),
        }
        for outbox_id in store.outbox_ids(client_id)
    ]
    return json_answer({"outboxes": outboxes})


@router.get("/v1/outboxes/{outbox_id}/chain", response_model=ChainPage)
def show_chain(
    request: Request,
    client_id: Client,
    outbox_id: str,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=2, le=4000)] = 4000,
) -> Response:
    """Answer with digests and chain values of an outbox's next events after a seq, by seq."""
    rows = parts_of(request).store.chain_page(client_id, outbox_id, after, limit)
    return json_answer({"events": [dict(row) for row in rows]})
