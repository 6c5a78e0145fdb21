"""`Server`: uvicorn as the collector uses it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import uvicorn

from tracker.collector.connection import KEEP_ALIVE_SECONDS, Connection
from tracker.collector.serving.serving import SHUTDOWN_SECONDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from fastapi import FastAPI

_BACKLOG = 128  # asyncio accepts as many in a row, even if there is no descriptor left


class Server(uvicorn.Server):
    """Serves an application on a listening socket until it is told to stop.

    After SIGTERM it goes on for a while, in which ``/readyz`` is answered 503, so that a load
    balancer sends no more. Then it accepts nothing new, ends the requests under way and returns.
    SIGINT leaves out the first part.

    Args:
        app: The application.
        started: Called when it accepts requests.
        draining: Called when it has been told to stop.
        drain_seconds: How long it goes on then.
        owner: Becomes readable when the process that owns this one has died; None if none does.
    """

    def __init__(
        self,
        app: FastAPI,
        started: Callable[[], None],
        draining: Callable[[], None],
        drain_seconds: float,
        owner: int | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,  # based on h11, which limits the size of headers
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        self._on_start = started
        self._on_drain = draining
        self._drain_seconds = drain_seconds
        self._owner = owner
        self._is_draining = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self._owner is not None:
            self._loop.add_reader(self._owner, self._lose_owner)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, for SIGTERM after a while. uvicorn calls this for each signal."""
        if sig == signal.SIGINT:
            # A terminal sends it to all processes at once, and the owner passes on a SIGTERM.
            if self._owner is None:
                super().handle_exit(sig, frame)
        elif not self._is_draining:
            self._is_draining = True
            self._on_drain()
            if self._loop is None or not self._drain_seconds:
                super().handle_exit(sig, frame)
            else:
                # The signal may have come while the loop was at work on its timers.
                self._loop.call_soon_threadsafe(
                    self._loop.call_later, self._drain_seconds, super().handle_exit, sig, frame
                )

    def _lose_owner(self) -> None:
        assert self._loop is not None  # noqa: S101 - it is the loop that calls this
        assert self._owner is not None  # noqa: S101 - as above
        self._loop.remove_reader(self._owner)
        self.should_exit = True
