"""The current conversation: where code finds it, and where not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tracker import AgentPerformanceTracker, ValidationError, current_conversation
from tracker.context import bind, resolve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.conftest import MakeConfig


@pytest.fixture
def tracker(config: MakeConfig) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(config(disabled=True)) as opened:
        yield opened


def current_id() -> str | None:
    conversation = current_conversation()
    return None if conversation is None else conversation.session_id


def test_blocks_nest(tracker: AgentPerformanceTracker) -> None:
    """The innermost block's conversation is current, and after each block what was before."""
    assert current_conversation() is None
    with tracker.conversation("a") as outer:
        assert current_conversation() is outer
        with tracker.conversation("b") as inner:
            assert current_conversation() is inner
        assert current_conversation() is outer
    assert current_conversation() is None


def test_blocks_of_generators_may_be_left_in_any_order(tracker: AgentPerformanceTracker) -> None:
    """Two generators in one context, first in and first out, leave no dead conversation behind."""

    def talk(agent: str) -> Generator[None, None, None]:
        with tracker.conversation(agent):
            yield

    first, second = talk("a"), talk("b")
    next(first)
    next(second)
    first.close()
    second.close()
    assert current_conversation() is None


def test_a_block_may_be_left_in_another_context(tracker: AgentPerformanceTracker) -> None:
    """As async frameworks do it with fixtures: nothing raises, nothing is current there."""
    block = tracker.conversation("a")
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_conversation() is None


def test_tasks_inherit_and_do_not_mix(tracker: AgentPerformanceTracker) -> None:
    """Each of many tasks sees its own conversation; a task made in a block sees that block's."""

    async def talk(number: int) -> None:
        async with tracker.conversation("a", session_id=f"s{number}"):
            for _ in range(5):
                await asyncio.sleep(0)
                assert current_id() == f"s{number}"
            assert await asyncio.create_task(see()) == f"s{number}"
            assert await asyncio.to_thread(current_id) == f"s{number}"

    async def see() -> str | None:
        return current_id()

    async def main() -> None:
        await asyncio.gather(*(talk(number) for number in range(20)))
        assert current_conversation() is None

    asyncio.run(main())


def test_bind_gives_a_thread_the_conversation(tracker: AgentPerformanceTracker) -> None:
    """Without it a thread has none."""
    seen: list[str | None] = []
    with tracker.conversation("a", session_id="s"):
        for target in (lambda: seen.append(current_id()), bind(lambda: seen.append(current_id()))):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, "s"]


def test_a_bound_function_serves_many_threads_at_once(tracker: AgentPerformanceTracker) -> None:
    """One bound function, in all threads of a pool at the same time, within itself too."""
    together = threading.Barrier(4, timeout=30)

    def look(number: int) -> tuple[int, str | None]:
        together.wait()
        with tracker.conversation("b"):
            pass
        return number, current_id()

    with tracker.conversation("a", session_id="s"), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(bind(look), range(4)))
        assert bind(bind(current_id))() == "s"
    assert found == [(number, "s") for number in range(4)]


def test_bind_keeps_the_function_as_it_is() -> None:
    """Arguments, result, exception and name pass through."""

    def divide(above: int, *, below: int) -> float:
        return above / below

    assert bind(divide)(6, below=3) == 2
    with pytest.raises(ZeroDivisionError):
        bind(divide)(6, below=0)
    assert bind(divide).__name__ == "divide"


def test_bind_takes_nothing_but_functions() -> None:
    """The mistake is told where it is made, and not in another thread."""
    with pytest.raises(ValidationError, match="function: is of type int; give a function"):
        bind(5)  # type: ignore[arg-type]  # the point


def test_no_session_id_means_the_current_conversation(tracker: AgentPerformanceTracker) -> None:
    """A session id given is checked; None is the current conversation's, or an error."""
    assert resolve("given") == "given"
    with tracker.conversation("a", session_id="s"):
        assert resolve(None) == "s"
        assert resolve("given") == "given"
        with pytest.raises(ValidationError, match="session_id: is empty"):
            resolve("")
    with pytest.raises(ValidationError, match="is None, and no conversation is current; pass"):
        resolve(None)
