"""Forms that are sent to pages are small, and have to arrive."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.dashboard import RunningDashboard


@pytest.mark.slow
def test_a_form_that_does_not_arrive_is_given_up(board: RunningDashboard) -> None:
    """Otherwise anybody could hold connections for ever: nobody has to be signed in for that."""
    with socket.create_connection(("127.0.0.1", board.port), timeout=30) as connection:
        head = (
            f"POST /theme HTTP/1.1\r\nHost: 127.0.0.1:{board.port}\r\nContent-Length: 9\r\n\r\ncs"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
