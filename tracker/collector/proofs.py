"""Routes that prove to somebody else what the collector has."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

import base64
import contextlib
from collections.abc import Iterator
from io import BytesIO
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, select

from tracker.collector import evidence
from tracker.collector.access import Client, Identifier, Parts, parts_of
from tracker.collector.answers import json_answer
from tracker.collector.evidence import Selection
from tracker.collector.models import ERRORS, CheckpointPage, Consistency, Inclusion
from tracker.collector.refusal import RefusedError
from tracker.collector.stored_tree import StoredTree
from tracker.collector.tables import checkpoints
from tracker.evidence import bundle
from tracker.evidence.bundle import BundleError
from tracker.evidence.tree import Tree, TreeError

_MAX_INTEGER = 2**63 - 1
_MAX_LEAVES = 5_000_000
_LISTED = ("id", "seq", "size", "root", "state", "note", "received_at_ms", "timestamp",
           "stamped_at_ms")  # fmt: skip

router = APIRouter(tags=["evidence"], responses=ERRORS)
public = APIRouter(tags=["evidence"])

Size = Annotated[int, Query(ge=1, le=_MAX_LEAVES)]
Seq = Annotated[int | None, Query(ge=1, le=_MAX_LEAVES)]
Moment = Annotated[int | None, Query(ge=0, le=_MAX_INTEGER, description="Unix milliseconds.")]


@public.get(
    "/v1/witness-key",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 404: ERRORS[404]},
)
async def show_witness_key(request: Request) -> Response:
    """Answer with the public key that cosigns heads, as ``name+id+base64``."""
    witness = parts_of(request).store.witness
    if witness is None:
        raise RefusedError(404, "not_found", "This collector cosigns nothing.")
    return Response(f"{witness.key}\n", media_type="text/plain")


@router.get("/v1/outboxes/{outbox_id}/checkpoints", response_model=CheckpointPage)
async def list_checkpoints(
    request: Request,
    client_id: Client,
    outbox_id: str,
    after: Annotated[int, Query(ge=0, le=_MAX_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Answer with the heads that came from an outbox, and what became of each."""
    parts = parts_of(request)
    listed = (
        select(*(checkpoints.c[name] for name in _LISTED))
        .where(
            checkpoints.c.client_id == client_id,
            checkpoints.c.outbox_id == outbox_id,
            checkpoints.c.id > after,
        )
        .order_by(checkpoints.c.id)
        .limit(limit + 1)
    )

    def query() -> Response:
        with parts.store.reading() as connection:
            # A NUL is not possible in a query to PostgreSQL.
            rows = [] if "\0" in outbox_id else [*connection.execute(listed).mappings()]
        found = [_checkpoint(dict(row)) for row in rows[:limit]]
        following = found[-1]["id"] if len(rows) > limit else None
        return json_answer({"checkpoints": found, "next": following})

    return await parts.read(client_id, query)


def _checkpoint(row: dict[str, Any]) -> dict[str, Any]:
    stamp = row["timestamp"]
    return {**row, "timestamp": None if stamp is None else base64.b64encode(stamp).decode()}


@router.get("/v1/outboxes/{outbox_id}/consistency", response_model=Consistency)
async def show_consistency(
    request: Request, client_id: Client, outbox_id: str, old: Size, new: Size
) -> Response:
    """Answer with the proof that an outbox's tree of one size extends that of a smaller one."""
    parts = parts_of(request)

    def query() -> Response:
        with _proving(parts, client_id, outbox_id) as (_, stored):
            path = Tree(stored, new).consistency(old)
        return json_answer(Consistency(old, new, [each.hex() for each in path]))

    return await parts.read(client_id, query)


@router.get("/v1/outboxes/{outbox_id}/proof", response_model=Inclusion)
async def show_inclusion(
    request: Request, client_id: Client, outbox_id: str, seq: Size, size: Size
) -> Response:
    """Answer with the proof that an event's digest is in an outbox's tree of a size."""
    parts = parts_of(request)

    def query() -> Response:
        with _proving(parts, client_id, outbox_id) as (_, stored):
            tree = Tree(stored, size)
            path, root = tree.inclusion(seq), tree.root()
            ((_, digest),) = stored.digests(seq, seq)
        hashes = [each.hex() for each in path]
        return json_answer(Inclusion(seq, size, digest.hex(), root.hex(), hashes))

    return await parts.read(client_id, query)


@router.get(
    "/v1/evidence",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
async def write_evidence(
    request: Request,
    client_id: Client,
    outbox_id: Identifier,
    session_id: Identifier | None = None,
    first_seq: Seq = None,
    last_seq: Seq = None,
    since: Moment = None,
    until: Moment = None,
    complete: Annotated[
        bool, Query(description="Show every number between, if only as a digest.")
    ] = False,
    withhold: Annotated[
        Literal["user"] | None, Query(description="Leave this out of the events.")
    ] = None,
) -> Response:
    """Answer with evidence for a third party: events of a session, of a range or of a period.

    It is a zip file, which ``verifier.py`` checks. Events that no cosigned head covers yet are left
    out.
    """
    parts = parts_of(request)
    selection = Selection.of(session_id, (first_seq, last_seq), (since, until))

    def query() -> Response:
        with _proving(parts, client_id, outbox_id) as (connection, stored):
            outbox = evidence.Outbox(connection, client_id, outbox_id, parts.store.witness)
            contents = outbox.contents(
                selection, stored, parts.settings, complete=complete, withhold=withhold
            )
            witness = parts.store.witness
            signer = None if witness is None else (witness.key.name, witness.signer)
            file = BytesIO()
            bundle.write(file, contents, stored, signer)
        name = {"Content-Disposition": 'attachment; filename="evidence.zip"'}
        return Response(file.getvalue(), headers=name, media_type="application/zip")

    return await parts.read(client_id, query)


@contextlib.contextmanager
def _proving(
    parts: Parts, client_id: str, outbox_id: str
) -> Iterator[tuple[Connection, StoredTree]]:
    """Yield a transaction and the tree of an outbox; answer 404 if it does not prove anything."""
    if "\0" in outbox_id:
        raise RefusedError(404, "not_found", "There is no such outbox of this client.")
    try:
        with parts.store.reading() as connection:
            yield connection, StoredTree(connection, client_id, outbox_id, parts.store.tiles)
    except (TreeError, BundleError) as error:
        raise RefusedError(404, "not_provable", f"This cannot be proved: {error}.") from error
