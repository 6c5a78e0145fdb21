"""Routes that return events as they were received, and report whether any is missing."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from tracker.collector.access import Client, parts_of
from tracker.collector.answers import json_answer
from tracker.collector.counts import Place
from tracker.collector.filtered import Filtered
from tracker.collector.models import ERRORS, ChainPage, EventPage, Outboxes, Session
from tracker.collector.refusal import RefusedError
from tracker.collector.store import FEW_EVENTS, ConversationPlace
from tracker.collector.tables import NOWHERE

_MAX_ID = 2**63 - 1
# Limits of events read and of ranges listed for one page of outboxes, after which it ends early.
_MAX_READ = 1_000_000
_MAX_LISTED = 50_000


class _AnyText(Convertor[str]):
    """The whole rest of a path: Starlette's ``path`` stops at a newline, which ids may contain."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anytext", _AnyText())


router = APIRouter(tags=["events"], responses=ERRORS)


@router.get("/v1/events", response_model=EventPage)
async def list_events(
    request: Request,
    client_id: Client,
    wanted: Filtered,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Answer with a page of the client's events in the order in which they were stored."""
    parts = parts_of(request)

    def query() -> Response:
        rows, following = parts.store.events_after(
            client_id, after, limit, parts.settings.max_page_bytes, wanted
        )
        return json_answer({"next": following}, events=[dict(row) for row in rows])

    return await parts.read(client_id, query)


@router.get("/v1/conversations/{session_id:anytext}", response_model=Session)
async def show_conversation(
    request: Request,
    client_id: Client,
    session_id: str,
    after: Annotated[
        str | None,
        Query(pattern=r"^\d{1,18}-\d{1,19}-\d{1,18}$", description="`next` of last page."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Answer with one session: its summary and a page of its events."""
    parts = parts_of(request)
    place = ConversationPlace(*map(int, after.split("-"))) if after else None

    def query() -> Response:
        # A NUL is not possible in a query to PostgreSQL.
        whole = None
        if "\0" not in session_id and (place is None or max(place) <= _MAX_ID):
            whole, rows, last = parts.store.conversation(
                client_id, session_id, limit, parts.settings.max_page_bytes, place
            )
        if whole is None:
            raise RefusedError(404, "not_found", "No event of this client has this session_id.")
        following = "-".join(map(str, last)) if last else None
        return json_answer({**asdict(whole), "next": following}, events=rows)

    return await parts.read(client_id, query)


@router.get("/v1/outboxes", response_model=Outboxes)
async def list_outboxes(
    request: Request,
    client_id: Client,
    after: Annotated[
        str,
        Query(
            pattern=r"^\d{1,19}(-[0-9A-Fa-f-]{36})?$", description="`next` of the previous page."
        ),
    ] = "0",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    whole: Annotated[
        bool, Query(description="Whether to read all events again, as they are now.")
    ] = False,
) -> Response:
    """Answer with a report on each of the client's outboxes: is it complete and unchanged?"""
    parts = parts_of(request)
    place, _, outbox_id = after.partition("-")
    # An outbox that has an event is told apart by its place alone.
    last = Place(min(int(place) + (not outbox_id), NOWHERE), outbox_id)

    def query() -> Response:
        found = parts.store.outbox_ids(client_id, last, limit + 1)
        outboxes: list[dict[str, object]] = []
        read, listed, following = 0, 0, None
        for number, each in enumerate(found):
            if number == limit or read > _MAX_READ or listed > _MAX_LISTED:
                following = _next_of(found[number - 1])
                break
            report = parts.store.outbox_report(client_id, each.outbox_id, whole=whole)
            refusals = [each._asdict() for each in report.refusals]
            named = {"outbox_id": each.outbox_id, "client_id": client_id}
            outboxes.append({**named, **asdict(report), "refusals": refusals})
            if whole or report.events <= FEW_EVENTS:
                read += report.events
            listed += len(report.missing) + len(report.refused) + len(report.reused_seqs)
            listed += len(report.discarded) + len(report.refusals)
        return json_answer({"outboxes": outboxes, "next": following})

    return await parts.read(client_id, query)


def _next_of(place: Place) -> str:
    return str(place.place) if place.place < NOWHERE else f"{place.place}-{place.outbox_id}"


@router.get("/v1/outboxes/{outbox_id}/chain", response_model=ChainPage)
async def show_chain(
    request: Request,
    client_id: Client,
    outbox_id: str,
    after: Annotated[int, Query(ge=0, le=_MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=2, le=4000)] = 4000,
) -> Response:
    """Answer with digests and chain values of an outbox's events after a seq, in order of seq."""
    parts = parts_of(request)

    def query() -> Response:
        known = "\0" not in outbox_id
        rows = parts.store.chain_page(client_id, outbox_id, after, limit) if known else []
        return json_answer({"events": [dict(row) for row in rows]})

    return await parts.read(client_id, query)
