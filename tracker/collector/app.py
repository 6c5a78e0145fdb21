"""The collector's HTTP side: `create_app`."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

import asyncio

from fastapi import APIRouter, FastAPI, Request, Response

from tracker._version import __version__
from tracker.collector import ingest, reading, records
from tracker.collector.access import Parts, parts_of
from tracker.collector.answers import handle_errors, json_answer
from tracker.collector.keys import Keys
from tracker.collector.limits import RateLimiter
from tracker.collector.models import ERRORS, Health
from tracker.collector.settings import Settings
from tracker.collector.store import Store

router = APIRouter(tags=["health"])


def create_app(store: Store, settings: Settings) -> FastAPI:
    """Return the collector as an ASGI application.

    The caller owns `store` and closes it after the server has stopped. Everything that touches
    the database or takes time runs in worker threads, never on the event loop.
    """
    app = FastAPI(
        title="tracker-collector",
        version=__version__,
        docs_url=None,  # a page that loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # clients never follow a redirect
    )
    app.state.parts = Parts(
        store,
        Keys(store),
        RateLimiter(settings.requests_per_minute),
        settings,
        asyncio.Semaphore(settings.concurrent_reads),
    )
    for part in (ingest, records, reading):
        app.include_router(part.router)
    app.include_router(router)
    handle_errors(app)
    return app


@router.get("/healthz", response_model=Health)
async def health() -> Response:
    """Answer 200 while the process runs."""
    return json_answer({"status": "ok"})


@router.get("/readyz", response_model=Health, responses={503: ERRORS[503]})
def readiness(request: Request) -> Response:
    """Answer 200 if the database answers, 503 if not."""
    parts_of(request).store.check()
    return json_answer({"status": "ready"})
