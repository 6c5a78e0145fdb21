"""UUIDv7 ids: well-formed, rising, and never given twice."""

from __future__ import annotations

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tracker.ids import IdSource, new_id

if TYPE_CHECKING:
    from collections.abc import Callable


def test_ids_are_uuids_of_version_7() -> None:
    """Version and variant bits are those of RFC 9562; the time is that of the call."""
    before = time.time_ns() // 1_000_000
    text = IdSource().new()  # the process's own stands ahead of a clock that a test set back
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert text == str(parsed)
    assert before <= parsed.int >> 80 <= after


def test_each_id_is_greater_than_the_last_even_within_a_millisecond() -> None:
    """Sorted by text, ids are in the order in which they were made."""
    source = IdSource()
    ids = [source.new() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_a_clock_that_steps_back_does_not_reorder_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that stands still for longer than the counter lasts."""
    source = IdSource()
    clock = [1_790_000_000_000, 1_790_000_000_000, 1_000, 0, 1_789_999_999_999] + [5] * 10_000
    readings = iter(clock)
    monkeypatch.setattr(time, "time_ns", lambda: next(readings) * 1_000_000)
    ids = [source.new() for _ in clock]
    assert ids == sorted(set(ids))
    assert all(uuid.UUID(text).version == 7 for text in ids)


def test_a_clock_in_1970_makes_valid_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without a clock battery still has unique ids."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    source = IdSource()
    parsed = {uuid.UUID(source.new()) for _ in range(1_000)}
    assert {item.version for item in parsed} == {7}
    assert len(parsed) == 1_000


def test_threads_share_no_id() -> None:
    """Eight threads at once get ids that all differ."""
    source = IdSource()
    start = threading.Barrier(8)

    def many(_: int) -> list[str]:
        start.wait()
        return [source.new() for _ in range(5_000)]

    with ThreadPoolExecutor(8) as pool:
        ids = [text for some in pool.map(many, range(8)) for text in some]
    assert len(set(ids)) == 40_000


def in_child(work: Callable[[], str]) -> str:
    """Return what `work` gives in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, work().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_children_share_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parent and children begin from the same state at the same time, and still differ."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    new_id()

    def many() -> str:
        return "\n".join(new_id() for _ in range(200))

    ids = [text for _ in range(4) for text in in_child(many).split("\n")]
    ids += many().split("\n")
    assert len(set(ids)) == 1_000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_the_lock_is_held_can_make_ids() -> None:
    """The thread that held the lock does not exist in the child, so nobody would release it."""
    from tracker import ids

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ids._process_ids._lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        assert uuid.UUID(in_child(new_id)).version == 7
    finally:
        done.set()
        thread.join()
