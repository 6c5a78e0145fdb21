"""Programs whose logging calls are interrupted.

Run by ``python -m tests.faults.interrupted KIND SECONDS``. Each writes the ids that calls returned
to the file ``acknowledged`` beside the outbox, says on standard output how often it was hit,
and fails if a call raises what did not hit it, or if another thread has to wait.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker import Tracker

CHANCE = random.Random(1)  # noqa: S311 - chance, not secrecy
BOUND_SECONDS = 10.0
"""How long a call may take that nobody interrupts: generous, for a busy machine."""


class LimitError(Exception):
    """What a time limit raises."""


class Program:
    """A tracker, what its calls returned, and how often they were interrupted."""

    def __init__(self, seconds: float) -> None:
        from tracker import APIConfig, Tracker

        self.config = APIConfig(on_error="raise")
        self.tracker: Tracker = Tracker(self.config)
        self.end = time.monotonic() + seconds
        self.outcomes: Counter[str] = Counter()
        self._notes = (self.config.outbox_path.parent / "acknowledged").open("a", buffering=1)

    def goes_on(self) -> bool:
        return time.monotonic() < self.end

    def call(self, **data: Any) -> None:
        """Log an event, and note its id once the call has returned."""
        self.note(self.tracker.track("test.noted", data))

    def note(self, event_id: str) -> None:
        self._notes.write(event_id + "\n")
        self.outcomes["returned"] += 1

    def expect(self, *kinds: type[BaseException], call: Callable[[], None]) -> None:
        """Make a call that may be interrupted by exceptions of these kinds alone."""
        try:
            call()
        except kinds as error:
            self.outcomes[type(error).__name__] += 1

    def check(self) -> None:
        """See that this thread and another can log at once."""
        began = time.monotonic()
        self.call()
        other = threading.Thread(target=self.call, daemon=True)
        other.start()
        other.join(BOUND_SECONDS)
        assert not other.is_alive(), "another thread hangs"
        assert time.monotonic() - began < BOUND_SECONDS


def signals(program: Program) -> None:
    """Two exceptions of a signal handler, 0 to 30 ms apart, in one call."""

    def strike(*_: object) -> None:
        if armed:
            signal.setitimer(signal.ITIMER_REAL, armed.pop())
            raise LimitError

    signal.signal(signal.SIGALRM, strike)
    armed: list[float] = []

    def struck() -> None:
        try:
            armed[:] = [0, CHANCE.uniform(0.0001, 0.03)]
            signal.setitimer(signal.ITIMER_REAL, CHANCE.uniform(0.0001, 0.04))
            event_id = program.tracker.track("test.noted", {})
        finally:
            armed.clear()
        program.note(event_id)

    def patiently() -> None:
        try:
            struck()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    while program.goes_on():
        program.expect(LimitError, call=patiently)
        program.check()


def recursion(program: Program) -> None:
    """RecursionError at every depth at which a call can meet the limit, and while it unwinds."""

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            program.call()

    limit = sys.getrecursionlimit()
    while program.goes_on():
        for levels in range(limit - 20, limit - 160, -1):
            program.expect(RecursionError, call=lambda levels=levels: descend(levels))  # type: ignore[misc]
        program.check()

        @program.tracker.performance.observe()
        def plan(number: int) -> int:
            return int(plan(number + 1))

        program.expect(RecursionError, call=lambda: plan(0))  # type: ignore[arg-type]
        program.check()


def memory(program: Program) -> None:
    """MemoryError wherever the process's limit falls."""
    with open("/proc/self/status") as status:  # noqa: PTH123 - no more imports
        size = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    from tracker import TrackerError

    while program.goes_on():
        room = CHANCE.randrange(4_000_000)
        resource.setrlimit(resource.RLIMIT_AS, (size + room, unlimited[1]))
        try:
            text = "y" * CHANCE.choice((100, 1_000, 20_000, 150_000))
            program.expect(
                MemoryError,
                TrackerError,
                RuntimeError,
                call=lambda: program.call(text=text),  # noqa: B023
            )
        except MemoryError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)
        program.check()


def threads(program: Program) -> None:
    """Exceptions that one thread raises in another, several in a row, and ``sys.exit``."""

    def some() -> None:
        for _ in range(50):
            program.call()

    def work(kind: type[BaseException], over: threading.Event) -> None:
        program.expect(kind, call=some)
        while not over.is_set():  # or a later exception would hit who gets this thread's number
            program.expect(kind, call=lambda: time.sleep(0.001))

    while program.goes_on():
        kind = CHANCE.choice((LimitError, KeyboardInterrupt, SystemExit))
        over = threading.Event()
        workers = [threading.Thread(target=work, args=(kind, over), daemon=True) for _ in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(CHANCE.randrange(1, 11)):
            victim = CHANCE.choice(workers)
            assert victim.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(victim.ident), ctypes.py_object(kind)
            )
            time.sleep(CHANCE.uniform(0, 0.003))
        over.set()
        for worker in workers:
            worker.join(BOUND_SECONDS)
            assert not worker.is_alive(), "a thread hangs"
        program.check()


def greenlets(program: Program) -> None:
    """Greenlets that are killed in the middle of a call."""
    import gevent

    def work() -> None:
        for _ in range(20):
            program.call()
            gevent.sleep(0)

    while program.goes_on():
        some = [gevent.spawn(work) for _ in range(8)]
        gevent.sleep(CHANCE.uniform(0, 0.01))
        gevent.killall(CHANCE.sample(some, 4), block=False)
        done = gevent.joinall(some, timeout=BOUND_SECONDS)
        assert len(done) == len(some), "a greenlet hangs"
        program.outcomes["killed"] += sum(isinstance(each.value, BaseException) for each in some)
        program.call()


KINDS: dict[str, Callable[[Program], None]] = {
    made.__name__: made for made in (signals, recursion, memory, threads, greenlets)
}


def main() -> None:
    """Run one of them."""
    kind, seconds = sys.argv[1:]
    if kind == "greenlets":
        from gevent import monkey

        monkey.patch_all()
    program = Program(float(seconds))
    program.call()
    KINDS[kind](program)
    sys.stdout.write(f"{dict(program.outcomes)}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
