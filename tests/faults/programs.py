"""Programs that die, fork and stop in every way: ``python -m tests.faults.programs ROLE NOTES …``.

Settings come from the environment. Each acknowledgement is noted outside, as in
`tests.support.agent`, right after its call returned.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.abc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.agent import Notes
from tests.support.opened import client_of
from tracker import (
    AgentPerformanceTracker,
    APIConfig,
    AsyncAgentPerformanceTracker,
    client,
    log,
)
from tracker.outbox.schema import create, guard, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tracker.outbox.store.transaction import Transaction

_CHILD_SECONDS = 60


class Program:
    """A tracker whose acknowledged calls are noted."""

    def __init__(self, notes: str) -> None:
        self.notes = Notes(Path(notes))
        self.tracker = AgentPerformanceTracker(APIConfig(backoff_cap=1, exit_timeout=0.1))
        self.client = client_of(self.tracker.config.outbox_path)
        self.stop = threading.Event()

    def log(self, session_id: str, number: int = 0) -> None:
        self.notes.add(id=self.tracker.log_user_message(session_id, str(number)))

    def keep_logging(self, session_id: str) -> None:
        number = 0
        while not self.stop.is_set():
            self.log(session_id, number)
            number += 1

    @contextlib.contextmanager
    def noise(self, threads: int) -> Iterator[None]:
        """Log from so many threads meanwhile."""
        names = [f"noise-{os.getpid()}-{number}" for number in range(threads)]
        workers = [threading.Thread(target=self.keep_logging, args=(name,)) for name in names]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()


def fork(program: Program, number: int, count: int = 5) -> int:
    """Fork a child that logs and ends by `os._exit`; return its pid."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(_CHILD_SECONDS)  # a child that hangs dies of it, and its parent says so
        for index in range(count):
            program.log(f"child-{number}", index)
        os._exit(0)
    return pid


def reap(pids: list[int]) -> None:
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert not any(ends), ends


def forks(notes: str, count: str) -> None:
    """Fork child after child, from a thread, while others log."""
    program = Program(notes)

    def work() -> None:
        for number in range(int(count)):
            reap([fork(program, number)])

    with program.noise(3):
        forker = threading.Thread(target=work)
        forker.start()
        forker.join()


def importing(notes: str) -> None:
    """Fork while the sync thread imports what it needs: the child's has to work all the same."""
    begun = threading.Event()

    class Slow(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tracker.delivery.retry":
                begun.set()
                time.sleep(0.5)  # the import is to be under way at the fork

    sys.meta_path.insert(0, Slow())
    program = Program(notes)
    assert begun.wait(_CHILD_SECONDS)
    pid = os.fork()
    if pid == 0:
        signal.alarm(_CHILD_SECONDS)
        program.log("child")
        while program.client.worker.elected is None:  # its thread has not come so far
            time.sleep(0.01)
        os._exit(0)
    reap([pid])
    program.log("parent")


def bomb(notes: str, count: str) -> None:
    """Let so many children log at once."""
    program = Program(notes)
    program.log("parent")
    reap([fork(program, number, 10) for number in range(int(count))])


def held_locks(notes: str) -> None:
    """Fork while another thread holds each lock in turn: the child has to be able to log."""
    program = Program(notes)
    outbox = program.client.outbox
    # Two of them are private: a call holds them for an instant, in which no test can fork.
    locks: list[Callable[[], AbstractContextManager[object]]] = [
        lambda: client._registry_lock,
        lambda: log.lock,
        lambda: outbox.intake.buffer.lock,
        outbox.reading,
        lambda: program.client.sessions._lock,
    ]
    for number, lock in enumerate(locks):
        fork_while(program, number, partial(hold, lock))
    fork_while(program, len(locks), lambda held, free: outbox.run(partial(_stay, held, free)))


def hold(
    lock: Callable[[], AbstractContextManager[object]],
    held: threading.Event,
    free: threading.Event,
) -> None:
    with lock():
        held.set()
        free.wait(0.05)


def _stay(held: threading.Event, free: threading.Event, _: Transaction) -> None:
    held.set()
    free.wait(0.05)


def fork_while(
    program: Program, number: int, busy: Callable[[threading.Event, threading.Event], object]
) -> None:
    held, free = threading.Event(), threading.Event()
    thread = threading.Thread(target=busy, args=(held, free))
    thread.start()
    assert held.wait(_CHILD_SECONDS)
    pid = fork(program, number)
    free.set()
    thread.join()
    reap([pid])
    program.log("parent", number)


_program: Program | None = None


def task(notes: str, number: int) -> int:
    """Log one task's event in a pool's worker, with the tracker inherited or a new one."""
    global _program
    if _program is None:
        _program = Program(notes)
    _program.log("pool", number)
    return os.getpid()


def pool(notes: str, method: str, count: str) -> None:
    """Work through tasks in a pool that replaces its workers now and then, as Celery does."""
    global _program
    _program = Program(notes)
    _program.log("parent")
    context: Any = multiprocessing.get_context(method)
    with context.Pool(2, maxtasksperchild=int(count) // 3) as workers:
        pids = workers.map(partial(task, notes), range(int(count)), chunksize=1)
    assert len(set(pids)) > 2, "workers were replaced"
    _program.log("parent", 1)


def command(notes: str) -> None:
    """Start programs that have nothing to do with the tracker, and one that has."""
    program = Program(notes)
    with program.noise(2):
        for _ in range(20):
            subprocess.run(["true"], check=True, close_fds=False)
        nested = [sys.executable, "-m", "tests.faults.programs", "bomb", notes, "2"]
        subprocess.run(nested, check=True)


def os_exit(notes: str) -> None:
    """End in the midst of other threads' calls, without any clean-up."""
    program = Program(notes)
    for number in range(3):
        threading.Thread(target=program.keep_logging, args=(f"thread-{number}",)).start()
    program.stop.wait(0.3)
    os._exit(0)


def thread_exit(notes: str) -> None:
    """Leave threads by SystemExit and by an error that nobody handles."""
    program = Program(notes)
    threading.excepthook = lambda _: None

    def leave(number: int) -> None:
        program.log("leaving", number)
        if number % 2:
            sys.exit(number)
        raise RuntimeError

    threads = [threading.Thread(target=leave, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    program.log("parent")


def unhandled(notes: str) -> None:
    """End by an error that nobody handles; the hook that reports it logs too."""
    program = Program(notes)
    sys.excepthook = lambda *_: program.log("hook")
    program.log("parent")
    raise RuntimeError


def shutdown(notes: str) -> None:
    """Let the interpreter end under daemon threads that go on logging, and log at exit.

    Exit handlers are called last come first: one before the tracker's, and one after it.
    """
    program = Program(notes)
    atexit.unregister(client._leave_all)
    atexit.register(program.log, "atexit", 2)
    atexit.register(client._leave_all)
    atexit.register(program.log, "atexit", 1)
    for number in range(4):
        name = f"daemon-{number}"
        threading.Thread(target=program.keep_logging, args=(name,), daemon=True).start()
    program.stop.wait(0.3)


def signals(notes: str, seconds: str) -> None:
    """Log in a signal handler that interrupts the same thread's calls wherever it falls."""
    program = Program(notes)

    def handle(*_: object) -> None:
        program.log("handler")
        # The next one after this one has ended: on a slow disk a handler takes longer than any
        # fixed interval, and Python would run each inside the one before.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.004))  # noqa: S311 - no secret

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        program.log("main")
    signal.setitimer(signal.ITIMER_REAL, 0)


def cancelled(notes: str, count: str) -> None:
    """Cancel awaits at random moments; note those that came to their end."""
    noted = Notes(Path(notes))

    async def main() -> None:
        async with AsyncAgentPerformanceTracker(APIConfig(exit_timeout=0.1)) as tracker:

            async def say(number: int) -> None:
                noted.add(id=await tracker.log_user_message("async", str(number)))

            for start in range(0, int(count), 20):
                tasks = [asyncio.create_task(say(start + number)) for number in range(20)]
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - no secret
                for task in random.sample(tasks, 10):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def greenlets(notes: str, count: str) -> None:
    """Log from greenlets, everything patched before anything else is imported (see the end)."""
    import gevent

    program = Program(notes)

    def work(number: int) -> None:
        for index in range(10):
            program.log(f"greenlet-{number}", index)
            gevent.sleep(0)

    spawned = [gevent.spawn(work, number) for number in range(int(count))]
    gevent.joinall(spawned, timeout=_CHILD_SECONDS, raise_error=True)
    assert all(greenlet.dead for greenlet in spawned)
    program.tracker.close(timeout=0.1)


def stopped(notes: str) -> None:
    """Stop inside a write, with the write lock held; go on when told to."""
    program = Program(notes)
    program.log("stopped")

    def job(_: Transaction) -> None:
        print("stopping", flush=True)  # noqa: T201 - the parent waits for it
        os.kill(os.getpid(), signal.SIGSTOP)

    program.client.outbox.run(job)
    program.log("stopped", 1)


def older(notes: str) -> None:
    """Log as a version would that knows only the schema before this one's.

    It is this version's code told so: what it writes with has not changed between the two.
    """
    known = create.known_revisions()
    tables.HEAD = known[1]
    create.known_revisions = lambda: known[1:]
    # It would look for its own tables, which `tables` has no longer.
    guard.check = lambda connection, *, at_head: None
    program = Program(notes)
    program.log("older")
    print("opened", flush=True)  # noqa: T201 - the parent waits for it
    for line in sys.stdin:
        for number in range(int(line)):
            program.log("older", number)
        print("logged", flush=True)  # noqa: T201 - the parent waits for it


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {
        name: role for name, role in globals().items() if getattr(role, "__doc__", None)
    }
    if sys.argv[1] == "greenlets" and "gevent" not in sys.modules:
        # Everything above was imported unpatched: begin anew, patched first of all.
        start = "import sys; from gevent import monkey; monkey.patch_all(); import runpy; "
        start += "runpy.run_module('tests.faults.programs', run_name='__main__', alter_sys=True)"
        os.execv(sys.executable, [sys.executable, "-c", start, *sys.argv[1:]])  # noqa: S606
    roles[sys.argv[1]](*sys.argv[2:])
