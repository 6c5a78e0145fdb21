"""How late an event loop is while it logs. `loop_lag` measures it, and the other designs too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks import loop_lag
from tests.benchmarks.figure import Figure
from tests.support.slow_disk import CANNOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the p99 on the disk as it is and, where it can be made so, on a slow one."""
    rounds = scale.of(loop_lag.ROUNDS, 1)
    for delay_ms, bound_ms in loop_lag.BOUNDS_MS.items():
        if delay_ms and CANNOT:
            continue
        idle, logging = (
            min(
                (loop_lag.run(design, delay_ms)["lag_ms"] for _ in range(rounds)),
                key=lambda lag: float(lag["p99"]),
            )
            for design in ("idle", "batched")
        )
        yield Figure(
            f"lag.{delay_ms}",
            f"an event loop's lag at {loop_lag.RATE:,} events/s, full, p99, flushes {delay_ms} ms "
            "slower",
            "",
            logging["p99"],
            "ms",
            most=bound_ms,
            details={"p50 ms": logging["p50"], "p99 of an idle loop ms": idle["p99"]},
        )
