"""Runs the dashboard on a port of loopback until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

ADDRESS = "127.0.0.1"
"""There is no way to listen elsewhere: the pages show what people said."""
_SHUTDOWN_SECONDS = 2


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Lend a socket that listens on loopback.

    Args:
        port: The port; 0 for a free one.

    Raises:
        OSError: if the port is not free; it names the port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            said = f"cannot listen on {ADDRESS} port {port}: {error.strerror}"
            raise OSError(error.errno, said) from error
        listener.listen()
        yield listener


def server_of(app: ASGIApp, started: Callable[[], None]) -> uvicorn.Server:
    """Return the server for an application.

    Args:
        app: The application.
        started: Called once, when requests are answered.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    return Server(
        uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,  # it would hold the token
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, and return."""
    # uvicorn raises the signal again after it has shut down in order; then it is to do nothing.
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda *_: None) for each in signals}
    try:
        server.run(sockets=[listener])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
