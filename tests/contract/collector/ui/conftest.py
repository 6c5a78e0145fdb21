"""The pages of a collector, on either database, and who looks at them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.visitor import TeamVisitor

if TYPE_CHECKING:
    from starlette.routing import Route

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def operator_key(either_collector: CollectorProcess) -> str:
    return either_collector.create_key(None)


@pytest.fixture
def operator(either_collector: CollectorProcess, operator_key: str) -> TeamVisitor:
    """An operator who is signed in."""
    return TeamVisitor.of(either_collector, operator_key)


@pytest.fixture
def visitor(either_collector: CollectorProcess, client: CollectorClient) -> TeamVisitor:
    """Somebody who is signed in with the key of a client."""
    return TeamVisitor.of(either_collector, client.api_key)


@pytest.fixture
def stranger(either_collector: CollectorProcess) -> TeamVisitor:
    """Somebody who is not signed in."""
    return TeamVisitor.of(either_collector)


def said(client: CollectorClient, text: str) -> list[dict[str, Any]]:
    """Have a client send a conversation, an erasure and a bad event that all hold a text."""
    chain = EventChain()
    names = {"session_id": "session", "user_id": "user", "agent_id": "a"}
    fields: dict[str, Any] = {name: f"{text}-{each}" for name, each in names.items()}
    trace = {"trace_id": TRACE_ID, "span_id": "00f067aa0ba902b7"}
    sent = [
        chain.event({}, type="conversation.started", **fields),
        chain.event({"role": "user", "content": f"{text} said this"}, **fields),
        chain.event({"name": text, "duration_ms": 2}, type="span.recorded", trace=trace, **fields),
        chain.event({"subject": text, "event_ids": []}, type="compliance.erased"),
        chain.event({"model": text, "total_tokens": 3}, type="llm.used", **fields),
        chain.event({"name": text, "value": 1}, type="score.recorded", **fields),
    ]
    bad = {**chain.event(), "event_id": str(uuid.uuid4()), "digest": "0" * 64}
    client.send(chain, [*sent, bad])
    return sent


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    """Every route below ``/ui``."""
    from tracker.collector.app import create_app
    from tracker.collector.settings import Settings
    from tracker.collector.store import Store
    from tracker.collector.ui.app import UI

    store = Store(tmp_path_factory.mktemp("routes") / "collector.sqlite3")
    try:
        app = create_app(store, Settings())
        found: Any = UI(app, app.state.parts, []).pages.routes[0]
        return list(found.routes)
    finally:
        store.close()
