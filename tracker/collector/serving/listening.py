"""A listening socket, and the names by which browsers on this machine reach it."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_HTTP_PORT = 80
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; the caller owns it.

    Raises:
        click.ClickException: if that is not possible.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A restart must not wait until the connections of the last run have expired.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from error
    return listener


def address_of(host: str, listener: socket.socket) -> str:
    """Return the address of a listening socket, as in ``http://127.0.0.1:8080``."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def ui_hosts(listener: socket.socket, names: Sequence[str]) -> list[str]:
    """Return what a browser may give as the host of the pages: this machine's names, and `names`.

    Raises:
        click.BadParameter: if one is no name.
    """
    port = listener.getsockname()[1]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?", name):
            raise click.BadParameter(
                f"{name!r} is not a name, as in tracker.example.com", param_hint="--ui-host"
            )
    own = [f"{name}:{port}" for name in LOOPBACK]
    return [*own, *(LOOPBACK if port == _HTTP_PORT else ()), *(name.lower() for name in names)]
