"""Context blocks: what they add to events, and what they refuse."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.settings import quick
from tracker import AsyncTracker, Tracker, ValidationError, add_context, bind
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


class Logged:
    """A tracker, and the contexts of what it logged by the event's type."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.destination = RecordingDestination()
        self.config = quick(folder, **settings)
        self.tracker = Tracker(self.config, destination=lambda: self.destination)

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        self.tracker.flush()
        return {event["type"]: event for event in self.destination.events}

    @property
    def contexts(self) -> dict[str, Any]:
        return {name: event.get("context") for name, event in self.events.items()}


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    made = Logged(tmp_path)
    yield made
    made.tracker.close()


def test_events_inside_a_block_have_its_items_and_those_of_the_blocks_around_it(
    logged: Logged,
) -> None:
    tracker = logged.tracker
    with tracker.context(tenant="a", tags={"site": "oslo"}):
        tracker.track("in.outer")
        with tracker.context(shift=["night", 2], tags={"line": "4"}):
            tracker.track("in.inner")
        tracker.track("in.outer_again")
    tracker.track("in.none")
    outer = {"tenant": "a", "tags": {"site": "oslo"}}
    assert logged.contexts == {
        "in.outer": outer,
        "in.inner": {"tenant": "a", "shift": ["night", 2], "tags": {"site": "oslo", "line": "4"}},
        "in.outer_again": outer,
        "in.none": None,
    }


def test_an_inner_block_replaces_an_item_and_none_takes_it_away(logged: Logged) -> None:
    tracker = logged.tracker
    with tracker.context(tenant="a", line=1):
        with tracker.context(tenant="b", line=None):
            tracker.track("in.inner")
        tracker.track("in.outer")
    assert logged.contexts == {"in.inner": {"tenant": "b"}, "in.outer": {"tenant": "a", "line": 1}}


def test_a_block_holds_for_every_kind_of_event(logged: Logged) -> None:
    tracker = logged.tracker

    @tracker.observe
    def look_up() -> None: ...

    with tracker.context(tenant="a"), tracker.conversation("agent-1") as c:
        c.user("hello")
        with c.tool("search"):
            pass
        look_up()
        tracker.operations.heartbeat("agent-1")
        tracker.llm.record_usage("p", "m", 1, 1)
        tracker.security.report_event("access_denied", "low")
        tracker.compliance.record_audit("x", "y")
    assert len(logged.contexts) == 9
    assert {str(context) for context in logged.contexts.values()} == {"{'tenant': 'a'}"}


def test_it_follows_tasks_and_bound_functions_and_leaks_into_nothing_else(logged: Logged) -> None:
    tracker = logged.tracker

    async def task(name: str) -> None:
        with tracker.context(task=name):
            await asyncio.sleep(0)
            tracker.track(f"in.{name}")

    async def main() -> None:
        with tracker.context(tenant="a"):
            await asyncio.gather(task("one"), task("two"))

    asyncio.run(main())
    with tracker.context(tenant="b"):
        threads = [
            threading.Thread(target=bind(tracker.track), args=("in.bound",)),
            threading.Thread(target=tracker.track, args=("in.unbound",)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert logged.contexts == {
        "in.one": {"tenant": "a", "task": "one"},
        "in.two": {"tenant": "a", "task": "two"},
        "in.bound": {"tenant": "b"},
        "in.unbound": None,
    }


def test_a_generator_that_is_left_late_restores_what_holds_then(logged: Logged) -> None:
    tracker = logged.tracker

    def steps() -> Generator[None, None, None]:
        with tracker.context(inner=1):
            yield

    with tracker.context(outer=1):
        generator = steps()
        next(generator)
    tracker.track("in.generator_only")
    generator.close()
    tracker.track("in.none")
    assert logged.contexts == {"in.generator_only": {"outer": 1, "inner": 1}, "in.none": None}


def test_what_is_added_without_a_block_stays(logged: Logged) -> None:
    def job() -> None:
        add_context(job="nightly")
        with add_context(step=1):
            logged.tracker.track("in.step")
        logged.tracker.track("in.job")

    bind(job)()
    logged.tracker.track("in.none")
    assert logged.contexts == {
        "in.step": {"job": "nightly", "step": 1}, "in.job": {"job": "nightly"}, "in.none": None,
    }  # fmt: skip


def test_async_trackers_have_the_same_block(tmp_path: Path) -> None:
    received = RecordingDestination()

    async def main() -> None:
        async with AsyncTracker(quick(tmp_path), destination=lambda: received) as tracker:
            with tracker.context(tenant="a"):
                await tracker.track("in.block")
            await tracker.flush()

    asyncio.run(main())
    assert [event["context"] for event in received.events] == [{"tenant": "a"}]


def test_secrets_in_it_are_masked(logged: Logged) -> None:
    with logged.tracker.context(password="hunter2", note="Bearer abcdefghijklmnopqrstuvwxyz012345"):
        logged.tracker.track("in.block")
    assert "hunter2" not in str(logged.contexts)
    assert "abcdefghijklmnop" not in str(logged.contexts)


def test_it_stays_when_the_events_of_a_user_are_erased(logged: Logged) -> None:
    with logged.tracker.context(tenant="a"):
        logged.tracker.track("cart.abandoned", {"items": 3}, user_id="user-1")
    logged.tracker.compliance.erase_subject("user-1")
    event = logged.events["cart.abandoned"]
    assert (event["data"], event["context"]) == ({"erased": True}, {"tenant": "a"})
    assert logged.tracker.security.verify_integrity().ok


@pytest.mark.parametrize(
    "items",
    [
        {"user": "x"}, {"user_id": "x"}, {"User-ID": "x"}, {"email": "x"}, {"name": "x"},
        {"phone": "x"}, {"firstName": "x"}, {"site": {"deep": [{"e_mail": "x"}]}},
        {"customer_email": "x"}, {"contactPhone": "x"}, {"last-user-id": "x"}, {"enduser.id": "x"},
        {"tags": {"user": "x"}}, {"tags": "site=oslo"}, {"tags": {"line": 4}}, {"tags": {"": "x"}},
        {"environment": 3}, {"release": ""}, {"x": object()}, {"x": float("nan")},
        {"x": "\ud800"}, {"x": "y" * 5_000},
    ],
)  # fmt: skip
def test_what_it_refuses_changes_nothing(logged: Logged, items: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        logged.tracker.context(**items)
    with pytest.raises(ValidationError):
        add_context(**items)
    logged.tracker.track("in.none")
    assert logged.contexts == {"in.none": None}


def test_names_of_other_things_than_persons_are_taken(logged: Logged) -> None:
    items = {"host_name": "a", "user_agent": "b", "ipAddress": "c", "microphone": "d", "emailed": 1}
    with logged.tracker.context(**items):
        logged.tracker.track("in.it")
    assert logged.contexts == {"in.it": items}


def test_blocks_within_blocks_are_bounded_together(logged: Logged) -> None:
    with (
        logged.tracker.context(a="x" * 3_000),
        pytest.raises(ValidationError, match="4,096"),
        logged.tracker.context(b="x" * 3_000),
    ):
        pass
    logged.tracker.track("in.none")
    assert logged.contexts == {"in.none": None}


def test_blocks_left_in_any_order_leave_what_is_still_open(logged: Logged) -> None:
    with logged.tracker.context(a=1):
        second = logged.tracker.context(b=2).__enter__()
        third = logged.tracker.context(c=3).__enter__()
        second.__exit__(None, None, None)
        third.__exit__(None, None, None)
        second.__exit__(None, None, None)
        logged.tracker.track("in.the.first")
    logged.tracker.track("in.none")
    assert logged.contexts == {"in.the.first": {"a": 1}, "in.none": None}


def test_what_a_thread_adds_again_and_again_replaces_what_it_added() -> None:
    """A worker that calls it for each request does not keep the items of all of them."""

    def work() -> int:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500):
            add_context(request=f"{number:03000}")
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() < 500_000
    finally:
        tracemalloc.stop()


def test_a_block_is_entered_once(logged: Logged) -> None:
    block = logged.tracker.context(tenant="a")
    with block:
        pass
    with pytest.raises(ValidationError, match="make a new one"), block:
        pass
