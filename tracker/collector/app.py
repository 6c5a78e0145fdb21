"""The collector's HTTP side: `create_app`."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from collections.abc import Collection

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tracker._version import __version__
from tracker.collector import ingest, proofs, reading, records
from tracker.collector.access import Parts, parts_of
from tracker.collector.answers import handle_errors, json_answer
from tracker.collector.gate import Bodies, Gate
from tracker.collector.key_uses import KeyUses
from tracker.collector.key_watch import KeyWatch
from tracker.collector.keys import Keys
from tracker.collector.known_keys import KnownKeys
from tracker.collector.limits import RateLimiter
from tracker.collector.meter import Meter, Metered
from tracker.collector.models import ERRORS, Health
from tracker.collector.otlp import routes as otlp
from tracker.collector.readiness import Readiness
from tracker.collector.settings import Settings
from tracker.collector.store import Store
from tracker.collector.together import Together

_LOOKUP_SECONDS = 5.0

router = APIRouter(tags=["health"])


def create_app(
    store: Store,
    settings: Settings,
    ui_hosts: Collection[str] | None = None,
    watch: KeyWatch | None = None,
    meter: Meter | None = None,
) -> FastAPI:
    """Return the collector as an ASGI application.

    The caller owns `store` and `watch`, and closes them after the server has stopped. Everything
    that uses the database or takes long runs in worker threads, never on the event loop.

    Args:
        store: The database.
        settings: The limits.
        ui_hosts: With these there are pages below ``/ui/`` too, for requests whose ``Host`` is one
            of them; they need jinja2.
        watch: Tells when keys change. Without it, the database is asked for each request.
        meter: Counts what happens.
    """
    app = FastAPI(
        title="tracker-collector",
        version=__version__,
        docs_url=None,  # a page that loads external scripts
        redoc_url=None,
        redirect_slashes=False,  # clients never follow a redirect
    )
    keys, count = Keys(store), meter or Meter()
    lookups = Gate(settings.concurrent_lookups, settings.concurrent_lookups, _LOOKUP_SECONDS)
    batches = Gate(*settings.concurrent_batches, settings.batch_wait_seconds)
    app.state.parts = parts = Parts(
        store,
        keys,
        KnownKeys(keys, lookups, watch, count),
        RateLimiter(settings.requests_per_minute / settings.processes),
        settings,
        Bodies(
            *settings.max_requests,
            settings.max_held_bytes // 2,
            settings.max_held_bytes,
            count.holds_body,
        ),
        batches,
        Gate(*settings.concurrent_otlp, settings.batch_wait_seconds),
        Gate(*settings.concurrent_reads, settings.read_wait_seconds),
        lookups,
        Readiness(store),
        count,
        KeyUses(store),
        Together(store, batches, count, settings.batches_together),
    )
    if ui_hosts is not None:
        from tracker.collector.ui.app import UI

        app.add_middleware(UI, parts=parts, hosts=ui_hosts)
    app.add_middleware(_AnswerHead)
    if meter is not None:
        app.add_middleware(Metered, meter=meter)
    for routes in (
        ingest.router,
        otlp.router,
        records.router,
        reading.router,
        proofs.router,
        proofs.public,
    ):
        app.include_router(routes)
    app.include_router(router)
    handle_errors(app)
    return app


@router.get("/healthz", response_model=Health)
async def health() -> Response:
    """Answer 200 while the process runs."""
    return json_answer({"status": "ok"})


@router.get("/readyz", response_model=Health, responses={503: ERRORS[503]})
async def readiness(request: Request) -> Response:
    """Answer 200 if a batch would be stored, 503 if not or if that is not known within 2 s."""
    await parts_of(request).readiness.check()
    return json_answer({"status": "ready"})


class _AnswerHead:
    """Answers HEAD like GET; the server leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
