"""`Server`: uvicorn as the collector uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from tracker.collector.connection import KEEP_ALIVE_SECONDS, Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fastapi import FastAPI

_SHUTDOWN_SECONDS = 10
_BACKLOG = 128  # asyncio accepts as many in a row, even if there is no descriptor left


class Server(uvicorn.Server):
    """Serves an application on a listening socket until SIGTERM or SIGINT.

    Args:
        app: The application.
        started: Called when it accepts requests.
    """

    def __init__(self, app: FastAPI, started: Callable[[], None]) -> None:
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
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self._on_start = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        self._on_start()
