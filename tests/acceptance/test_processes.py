"""Many threads and processes on one outbox, by fork and by spawn."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.test_no_event_lost import kill, run_until, settings
from tests.support import agent
from tracker import AgentPerformanceTracker, APIConfig
from tracker.outbox.files.file_lock import FileLock
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.collector import CollectorClient

THREADS, PROCESSES, EVENTS = 8, 4, 40


def assert_once_and_in_order(
    client: CollectorClient, notes: list[dict[str, Any]], others: int = 0
) -> None:
    events = client.events()
    arrived = Counter(event["event_id"] for event in events)
    assert set(arrived.values()) == {1}
    assert {note["id"] for note in notes} <= set(arrived)
    checkpoints = sum(event["type"] == "integrity.checkpoint" for event in events)
    assert len(events) == len(notes) + others + checkpoints
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    numbers = defaultdict(list)
    for event in events:
        if event["data"].get("content", "").isdigit():
            numbers[event["session_id"]].append(int(event["data"]["content"]))
    assert all(said == sorted(said) for said in numbers.values()), "order within each thread"
    (outbox,) = client.outboxes()
    assert (outbox["missing"], outbox["chain"]) == ([], "intact")


def test_spawned_processes_and_threads(client: CollectorClient, tmp_path: Path) -> None:
    """Eight threads in each of four fresh processes on one outbox: all delivered, once."""
    environment = settings(client, tmp_path)
    crowd = [
        agent.start(environment, "crowd", tmp_path / f"notes-{number}", THREADS, EVENTS)
        for number in range(PROCESSES)
    ]
    assert [process.wait() for process in crowd] == [0] * PROCESSES
    for process in crowd:
        kill(process)
    flusher = agent.start(environment, "burst", tmp_path / "last", 1, "flush")
    run_until("pending 0", flusher)
    kill(flusher)
    notes = [note for path in sorted(tmp_path.glob("notes-*")) for note in agent.read_notes(path)]
    assert len(notes) == THREADS * PROCESSES * EVENTS
    assert_once_and_in_order(client, notes, others=1)


def end_if_hung() -> None:
    """End this forked child, with all threads' stacks, if it takes too long: it hangs."""
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__ or 2)


def in_children(work: Callable[[int], None], count: int) -> list[int | None]:
    """Run `work` in so many forked children at once and return their exit codes."""
    children = [
        multiprocessing.get_context("fork").Process(target=work, args=(number,))
        for number in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"  # that is what is tested
)
def test_forked_processes_and_threads(
    client: CollectorClient, config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """A parent that logs from threads forks four children that do the same: all delivered."""
    tracker = AgentPerformanceTracker(
        config(base_url=client.url, client_id=client.client_id, api_key=client.api_key)
    )

    def child(number: int) -> None:
        end_if_hung()
        agent.log_from_threads(tracker, tmp_path / f"notes-{number}", THREADS, EVENTS)
        assert tracker.flush(timeout=30).pending == 0

    noise = threading.Thread(
        target=agent.log_from_threads, args=(tracker, tmp_path / "notes-parent", 4, EVENTS * 4)
    )
    noise.start()
    assert in_children(child, PROCESSES) == [0] * PROCESSES
    noise.join()
    tracker.log_user_message("parent", "still here after the forks")
    assert tracker.flush(timeout=30).pending == 0
    tracker.close()
    notes = [note for path in sorted(tmp_path.glob("notes-*")) for note in agent.read_notes(path)]
    assert len(notes) == THREADS * PROCESSES * EVENTS + 4 * EVENTS * 4
    assert_once_and_in_order(client, notes, others=1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_while_others_write(config: Callable[..., APIConfig], tmp_path: Path) -> None:
    """However a fork falls into other threads' writes, the child can write and read at once."""
    tracker = AgentPerformanceTracker(config(base_url="http://127.0.0.1:9"))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            tracker.log_user_message("parent", "on and on")

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        for number in range(30):
            pid = os.fork()
            if pid == 0:
                end_if_hung()
                tracker.log_user_message("child", str(number))
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    tracker.close()
    outbox = Outbox(config(base_url="http://127.0.0.1:9"))
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()
        said = connection.exec_driver_sql(
            "SELECT json_extract(data, '$.content') FROM events WHERE session_id = 'child' "
            "ORDER BY seq"
        ).all()
    outbox.close()
    assert [int(content) for (content,) in said] == list(range(30))


def test_another_process_takes_over(
    client: CollectorClient, config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """Only one process uploads; when it is killed, another one's worker goes on."""
    environment = settings(client, tmp_path)
    uploader = agent.start(environment, "burst", tmp_path / "first", 5, "wait")
    run_until("logged", uploader)
    path = Path(environment["SDK_OUTBOX_PATH"])
    lock = FileLock(path.with_name(path.name + ".sync-lock"))
    await_(lambda: len(client.events()) == 5)
    assert not lock.try_acquire(), "the first process holds the upload lock"

    tracker = AgentPerformanceTracker(
        config(
            base_url=client.url,
            client_id=client.client_id,
            api_key=client.api_key,
            outbox_path=path,
        )
    )
    tracker.log_user_message("second", "who sends this?")
    await_(lambda: len(client.events()) == 6)
    kill(uploader)
    tracker.log_user_message("second", "and this?")
    assert tracker.flush(timeout=30).pending == 0
    assert not lock.try_acquire(), "this process holds the upload lock"
    assert len(client.events()) == 7
    tracker.close()
    assert lock.try_acquire()
    lock.close()


def await_(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `condition` holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        threading.Event().wait(0.02)
