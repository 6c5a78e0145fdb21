"""How late an event loop is while it logs: ``python -m tests.benchmarks.loop_lag``.

Logs 1,000 events a second for some seconds at durability ``full`` from `asyncio` tasks, on the disk
as it is and on one whose flush takes 20 ms more, and measures three designs beside an idle loop:

===========  ======================================================================================
``batched``  what the package does: calls run in one thread, and another commits all that came
``pool``     each call runs whole, with its commit, in one of 64 threads (`run_in_executor`)
``on loop``  calls run on the loop, and a thread commits all that came
``idle``     nothing is logged: what the machine and the measuring itself cost
===========  ======================================================================================

The lag is that of a callback: another process writes the time into a pipe every 2 ms or so, and the
loop notes how much later it read that. Also measured are the processor's time, the calls' own time,
and 1,000 calls in one `asyncio.gather`. Each is measured three times, and the quietest is told: a
table, then JSON. It says something of the machine that it runs on, and of what else runs there:
look at ``idle`` first.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.conversations import ROOT
from tests.support.slow_disk import CANNOT, slow_disk
from tracker import AgentPerformanceTracker, APIConfig
from tracker.aio.calls import Calls, _Call
from tracker.aio.trackers import AsyncAgentPerformanceTracker
from tracker.queries.metrics import nearest_rank
from tracker.sync.destination import Delivery, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tracker.aio.lanes import Lane
    from tracker.sync.destination import Upload

    Log = Callable[[str], Awaitable[object]]

RATE = 1000
SECONDS = 5.0
ROUNDS = 3
DELAY_MS = 20
DESIGNS = ("idle", "batched", "pool", "on loop")
BOUNDS_MS = {0: 2.0, DELAY_MS: 5.0}
"""Of the issues: p99 of the lag, by how much longer a flush takes."""

_POOL_THREADS = 64  # at 20 ms a flush, some 40 calls are under way
_BEATS = """
import os, random, struct, sys, time
while True:
    time.sleep(random.uniform(0.001, 0.003))
    os.write(1, struct.pack("d", time.monotonic()))
"""


def main() -> None:
    """Measure every design on both disks, or the one that the arguments name."""
    if len(sys.argv) > 1:
        design, folder = sys.argv[1:]
        json.dump(asyncio.run(measure(design, Path(folder))), sys.stdout)
        return
    found = []
    for delay_ms in (0, DELAY_MS):
        if delay_ms and CANNOT:
            sys.stdout.write(f"a slow disk is not measured: {CANNOT}\n")
            continue
        for design in DESIGNS:
            rounds = [run(design, delay_ms) for _ in range(ROUNDS)]
            quietest = min(rounds, key=lambda figures: figures["lag_ms"]["p99"])
            found.append({"design": design, "flush_delay_ms": delay_ms, **quietest})
            report(found[-1])
    sys.stdout.write(json.dumps(found) + "\n")


def run(design: str, delay_ms: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        slow = slow_disk(Path(folder), delay_ms) if delay_ms else {}
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.loop_lag", design, folder],
            check=True,
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, **slow},
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def report(found: dict[str, Any]) -> None:
    """Print one line of the table."""
    bound = BOUNDS_MS[found["flush_delay_ms"]]
    lag, took = found["lag_ms"], found["call_ms"]
    sys.stdout.write(
        f"flush +{found['flush_delay_ms']:2} ms  {found['design']:8} "
        f"lag p50 {lag['p50']:6.2f}  p99 {lag['p99']:6.2f}  max {lag['max']:7.2f} ms "
        f"({'within' if lag['p99'] <= bound else 'ABOVE'} {bound:g})   "
        f"cpu {found['cpu_percent']:5.1f} %   {found['per_second']:6.0f}/s   "
        f"call p50 {took['p50']:6.2f}  p99 {took['p99']:6.2f} ms   "
        f"gather(1000) {found['gather_ms']:6.0f} ms\n"
    )
    sys.stdout.flush()


class Discarding:
    """A destination that takes everything and keeps nothing."""

    def send(self, upload: Upload) -> Delivery:
        """Say that it is stored."""
        return Delivery(Outcome.DELIVERED)

    def close(self) -> None:
        """Do nothing."""


async def measure(design: str, folder: Path) -> dict[str, Any]:
    """Log at the rate wanted and return the figures."""
    config = APIConfig(api_key="unused", client_id="benchmark", outbox_path=folder / "outbox")
    log, close = await DESIGN[design](config)
    for _ in range(3):
        await log("warm-up")
    used = time.process_time()
    began = time.monotonic()
    lags, took = await asyncio.gather(beats(SECONDS), load(log, RATE, SECONDS))
    seconds = time.monotonic() - began
    used = time.process_time() - used
    gathers = []
    for _ in range(5):
        began = time.monotonic()
        await asyncio.gather(*(log(f"message {number}") for number in range(1000)))
        gathers.append((time.monotonic() - began) * 1000)
    await close()
    return {
        "lag_ms": percentiles(lags),
        "call_ms": percentiles(took),
        "cpu_percent": round(used / seconds * 100, 1),
        "per_second": round(len(took) / seconds, 1),
        "gather_ms": round(sorted(gathers)[2], 1),
    }


async def beats(seconds: float) -> list[float]:
    """Return how many milliseconds after they were written the other process's beats were read."""
    lags: list[float] = []
    command = [sys.executable, "-S", "-c", _BEATS]
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean) as other:
        assert other.stdout is not None
        pipe = other.stdout.fileno()

        def read() -> None:
            now = time.monotonic()
            stamps = struct.iter_unpack("d", os.read(pipe, 8192))
            lags.extend((now - stamp) * 1000 for (stamp,) in stamps)

        loop = asyncio.get_running_loop()
        loop.add_reader(pipe, read)
        await asyncio.sleep(seconds)
        loop.remove_reader(pipe)
        other.kill()
    return lags


async def load(log: Log, rate: int, seconds: float) -> list[float]:
    """Start `rate` calls a second, whether those before are done or not; return what each took."""
    took: list[float] = []

    async def one(number: int) -> None:
        began = time.monotonic()
        await log(f"message {number}: " + "lorem ipsum dolor sit amet " * 8)
        took.append((time.monotonic() - began) * 1000)

    tasks: set[asyncio.Task[None]] = set()
    began, made = time.monotonic(), 0
    while made < rate * seconds:
        for number in range(made, int((time.monotonic() - began) * rate)):
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            made += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    return took


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and the highest."""
    values = sorted(values)
    p50, p99 = nearest_rank(values, 50), nearest_rank(values, 99)
    return {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(values[-1], 3)}


async def idle(_: APIConfig) -> tuple[Log, Callable[[], Awaitable[object]]]:
    """Log nothing."""

    async def log(content: str) -> None:
        await asyncio.sleep(0)

    return log, functools.partial(asyncio.sleep, 0)


async def batched(config: APIConfig) -> tuple[Log, Callable[[], Awaitable[object]]]:
    """Log as the package does."""
    tracker = AsyncAgentPerformanceTracker(config, destination=Discarding)
    session_id = await tracker.start_conversation("agent-1", user_id="user-1")
    return functools.partial(tracker.log_user_message, session_id), tracker.close


async def pool(config: APIConfig) -> tuple[Log, Callable[[], Awaitable[object]]]:
    """Log with each call in a thread, its commit included."""
    tracker = AgentPerformanceTracker(config, destination=Discarding)
    session_id = tracker.start_conversation("agent-1", user_id="user-1")
    executor = ThreadPoolExecutor(_POOL_THREADS)
    loop = asyncio.get_running_loop()

    def log(content: str) -> Awaitable[object]:
        work = contextvars.copy_context().run
        call = functools.partial(work, tracker.log_user_message, session_id, content)
        return loop.run_in_executor(executor, call)

    async def close() -> None:
        await loop.run_in_executor(executor, tracker.close)
        executor.shutdown()

    return log, close


class OnLoop(Calls):
    """Runs calls on the loop, all but their commit."""

    async def _run(self, lane: Lane, work: Callable[[], Any]) -> Any:
        if lane is not self._logging:
            return await super()._run(lane, work)
        call = _Call(work)
        self._prepare(call)
        return await call.future


async def on_loop(config: APIConfig) -> tuple[Log, Callable[[], Awaitable[object]]]:
    """Log with calls on the loop and commits in a thread."""
    tracker = AsyncAgentPerformanceTracker(config, destination=Discarding)
    tracker._calls = OnLoop()
    session_id = await tracker.start_conversation("agent-1", user_id="user-1")
    return functools.partial(tracker.log_user_message, session_id), tracker.close


DESIGN: dict[str, Callable[[APIConfig], Coroutine[Any, Any, Any]]] = {
    "idle": idle,
    "batched": batched,
    "pool": pool,
    "on loop": on_loop,
}


if __name__ == "__main__":
    main()
