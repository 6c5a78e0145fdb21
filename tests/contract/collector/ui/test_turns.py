"""Pages wait for their turn like other queries, and hold no connection that a batch needs."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.contract.collector.ui.conftest import TRACE_ID
from tracker.collector.app import create_app
from tracker.collector.keys import Keys
from tracker.collector.settings import Settings
from tracker.collector.store import Store
from tracker.collector.ui.app import UI
from tracker.collector.ui.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.routing import Route

    from tracker.collector.access import Parts

SETTINGS = Settings(concurrent_reads=(1, 1), read_wait_seconds=0.05)
UNREAD = {"/login", "/logout", "/theme", "/verify", "/static/{file}"}
"""Routes that show nothing of the database, and forms."""


class Inside:
    """The pages in this process, asked without a network by somebody who is signed in."""

    def __init__(self, store: Store) -> None:
        app = create_app(store, SETTINGS)
        self.parts: Parts = app.state.parts
        self._ui = UI(app, self.parts, ["here"])
        _, key = Keys(store).create(None)
        Keys(store).create("kiosk")
        self._secret = Sessions(store).begin(key)

    async def get(self, path: str) -> int:
        """Return the status of a page."""
        return await self._ask("GET", path, b"")

    async def check_again(self) -> int:
        """Return the status of the answer to the button."""
        found = Sessions(self.parts.store).find(self._secret)
        assert found is not None
        form = f"csrf={found.csrf}&outbox=x"
        return await self._ask("POST", "/ui/verify?client=kiosk", form.encode())

    async def _ask(self, method: str, path: str, body: bytes) -> int:
        head, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": head, "raw_path": head.encode(),
            "query_string": query.encode(), "scheme": "http", "http_version": "1.1",
            "headers": [(b"host", b"here"), (b"cookie", f"tracker-ui={self._secret}".encode())],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._ui(scope, receive, send)
        status: int = sent[0]["status"]
        return status


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    store = Store(tmp_path / "collector.sqlite3")
    yield Inside(store)
    for thread in threading.enumerate():
        if thread.name.startswith("AnyIO"):  # told to end when its event loop ended
            thread.join(30)
    store.close()


def addresses(routes: list[Route]) -> list[str]:
    paths = [each.path for each in routes if each.path not in UNREAD]
    return [f"/ui{path}?client=kiosk&id={TRACE_ID}" for path in paths]


def test_every_page_waits_for_its_turn(inside: Inside, routes: list[Route]) -> None:
    """While other queries have all the places, it is refused after a while, as they are."""

    async def ask() -> None:
        for address in addresses(routes):
            assert await inside.get(address) in (200, 404), address
        assert await inside.check_again() == 404  # there is no such outbox
        async with inside.parts.reads.passing("somebody else"):
            for address in addresses(routes):
                assert await inside.get(address) == 503, address
            assert await inside.check_again() == 503

    asyncio.run(ask())


def test_a_database_that_fails_is_said(inside: Inside, routes: list[Route]) -> None:
    """By a page, on every route that reads it."""
    store = inside.parts.store
    with store.writing("test") as connection:
        for table in ("events", "heads", "gaps", "rejections"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    for address in addresses(routes):
        assert asyncio.run(inside.get(address)) == 503, address


def test_no_page_holds_two_connections(inside: Inside, routes: list[Route]) -> None:
    """The places at the gates are counted so that there is one for each."""
    held: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def taken(_connection: object, record: Any, _proxy: object) -> None:
        thread = threading.get_ident()
        record.info["thread"] = thread
        held[thread] += 1
        most[thread] = max(most[thread], held[thread])

    def given_back(_connection: object, record: Any) -> None:
        held[record.info.pop("thread")] -= 1

    event.listen(Pool, "checkout", taken)
    event.listen(Pool, "checkin", given_back)
    try:
        for address in addresses(routes):
            asyncio.run(inside.get(address))
    finally:
        event.remove(Pool, "checkout", taken)
        event.remove(Pool, "checkin", given_back)
    assert set(most.values()) == {1}
