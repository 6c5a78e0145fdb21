"""Who has a place at a gate, and who waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from tracker.collector.gate import Gate
from tracker.collector.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

PATIENCE = 60.0


def run(claim: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(claim, PATIENCE))


def test_a_client_that_is_stuck_leaves_places_to_others() -> None:
    """However many of its batches come, before the others or after them."""

    async def claim() -> None:
        gate, end = Gate(3, 2, PATIENCE), asyncio.Event()

        async def stay() -> None:
            async with gate.passing("stuck"):
                await end.wait()

        stuck = [asyncio.create_task(stay()) for _ in range(50)]
        await asyncio.sleep(0)
        for _ in range(100):
            async with gate.passing("calm"):
                await asyncio.sleep(0)
        end.set()
        await asyncio.gather(*stuck)

    run(claim())


def test_those_that_wait_come_in_one_after_the_other() -> None:
    """Each place that is left is taken at once, in the order of coming."""

    async def claim() -> None:
        gate, order = Gate(1, 1, PATIENCE), list[int]()

        async def pass_through(number: int) -> None:
            async with gate.passing(f"client-{number}"):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(pass_through, range(20)))
        assert order == list(range(20))

    run(claim())


def test_who_waits_too_long_is_told_to_come_again_and_costs_no_place() -> None:
    """Nor does one that is cancelled while it waits."""

    async def claim() -> None:
        gate = Gate(1, 1, 0.01)
        async with gate.passing("first"):
            with pytest.raises(RefusedError) as caught:
                async with gate.passing("second"):
                    pass
            assert (caught.value.status, caught.value.code) == (503, "busy")
            waits = asyncio.create_task(gate.passing("third").__aenter__())
            await asyncio.sleep(0)
            waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waits
        async with gate.passing("fourth"):
            pass

    run(claim())
