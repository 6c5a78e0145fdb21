"""Authentication and authorization, which every route depends on."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from tracker.collector.gate import Bodies, Gate
from tracker.collector.key_uses import KeyUses
from tracker.collector.keys import ApiKey, Keys
from tracker.collector.known_keys import KnownKeys
from tracker.collector.limits import RateLimiter
from tracker.collector.meter import Meter
from tracker.collector.readiness import Readiness
from tracker.collector.refusal import (
    RefusedError,
    client_mismatch,
    expired_key,
    invalid_key,
    scope_required,
)
from tracker.collector.settings import Settings
from tracker.collector.store import Store
from tracker.collector.tables import MAX_ID_LENGTH
from tracker.collector.together import Together

Identifier = Annotated[str, Query(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]*$")]
"""An id in a query, with the same limits as in an event."""


@dataclass(frozen=True)
class Parts:
    """The objects that the routes use, kept in ``app.state.parts``.

    Attributes:
        store: The database.
        keys: The keys in it.
        known: Finds the key of a request.
        limiter: Counts each key's batches.
        settings: The limits.
        bodies: Limits the bodies that are received at the same time.
        batches: Limits the batches that are stored at the same time, so that threads and
            connections are left for everything else.
        conversions: The same for OTLP requests, which take far more memory than a batch.
        reads: The same for queries.
        lookups: The same for key lookups.
        readiness: Whether a batch would be stored.
        meter: Counts what happens.
        uses: When keys were last used.
        together: Stores small batches.
    """

    store: Store
    keys: Keys
    known: KnownKeys
    limiter: RateLimiter
    settings: Settings
    bodies: Bodies
    batches: Gate
    conversions: Gate
    reads: Gate
    lookups: Gate
    readiness: Readiness
    meter: Meter
    uses: KeyUses
    together: Together

    async def read(self, client_id: str, query: Callable[[], Response]) -> Response:
        """Run a client's `query` in a thread when it is its turn, and return the answer."""
        async with self.reads.passing(client_id):
            return await run_in_threadpool(query)


def parts_of(request: Request) -> Parts:
    """Return the objects of the request's application."""
    parts: Parts = request.app.state.parts
    return parts


# For the description of the API only: it does not authenticate.
_bearer = HTTPBearer(auto_error=False, description="An API key.")
_ClientHeader = Annotated[
    str | None,
    Header(alias="X-Client-ID", description="The client of a client's key."),
]


async def _caller_of(request: Request) -> ApiKey:
    """Return the key of a request, before its body is read."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise invalid_key()
    parts = parts_of(request)
    found = await parts.known.find(key.strip())
    if found is None:
        raise invalid_key()
    _check_age(found)
    if not found.operator and _text(request.headers.get("x-client-id")) != found.client_id:
        raise client_mismatch("X-Client-ID is not the client that this API key belongs to.")
    parts.uses.note(found.id)
    return found


def _check_age(key: ApiKey) -> None:
    """Refuse a key that has expired. The look-up does not, since it may remember its answer."""
    if key.expires_at_ms is not None and key.has_expired():
        raise expired_key(key.expires_at_ms)


async def _authenticate(
    request: Request, _: Annotated[object, Depends(_bearer)], _header: _ClientHeader = None
) -> ApiKey:
    return await _caller_of(request)


Caller = Annotated[ApiKey, Depends(_authenticate)]
"""The key of a request."""


async def _client_to_read(
    caller: Caller,
    x_client_id: _ClientHeader = None,
    client_id: Annotated[
        Identifier | None, Query(description="The client whose events an operator reads.")
    ] = None,
) -> str:
    """Return the client whose events are requested."""
    if not caller.may_read:
        raise scope_required("operate" if caller.operator else "read", caller.scopes)
    if caller.client_id is not None:
        if client_id not in (None, caller.client_id):
            raise client_mismatch("client_id is not the client that this API key belongs to.")
        return caller.client_id
    named = {name for name in (client_id, _text(x_client_id)) if name}
    if not named:
        raise RefusedError(
            400, "client_required", "This is an operator's key: name a client with client_id."
        )
    if len(named) > 1:
        raise client_mismatch("client_id and X-Client-ID name different clients.")
    return named.pop()


Client = Annotated[str, Depends(_client_to_read)]
"""The client whose events are read: that of the key, or the one that an operator names."""


async def sender_of(request: Request) -> ApiKey:
    """Return the key of a request that sends events.

    For the route of batches, whose description says what it needs: as a dependency, this would take
    0.05 ms more of the processor for each batch.

    Raises:
        RefusedError: 401 or 403 if there is none, or it sends no events.
    """
    return _check_sends(await _caller_of(request))


def _check_sends(caller: ApiKey) -> ApiKey:
    if caller.operator:
        raise RefusedError(403, "operator_key", "This is an operator's key: it can only read.")
    if "send" not in caller.scopes:
        raise scope_required("send", caller.scopes)
    return caller


async def _client_that_sends(caller: Caller) -> ApiKey:
    """Return the key of a client; an operator's key belongs to none."""
    return _check_sends(caller)


Sender = Annotated[ApiKey, Depends(_client_that_sends)]
"""The key of a client that sends events."""


async def _operator(caller: Caller) -> ApiKey:
    if not caller.operator:
        raise RefusedError(403, "operator_only", "Only an operator's key is allowed to do this.")
    if "operate" not in caller.scopes:
        raise scope_required("operate", caller.scopes)
    return caller


Operator = Annotated[ApiKey, Depends(_operator)]
"""An operator's key."""


def _text(header: str | None) -> str | None:
    """Return a header decoded as UTF-8 if possible, otherwise as Latin-1."""
    if header is None:
        return None
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return header
