"""Requests as they are on the wire: lengths that two servers could read differently, and HEAD."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import CollectorProcess, ForkedCollector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def odd_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """A collector for requests that make it log a warning; the shared one must not log any."""
    with ForkedCollector(tmp_path_factory.mktemp("collector")) as process:
        yield process


CHUNKED = b"Transfer-Encoding: chunked\r\n"
BEHIND = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "lengths"),
    [
        (b"1.1", CHUNKED + b"Content-Length: 5\r\n"),
        (b"1.1", b"Content-Length: 5\r\n" + CHUNKED),
        (b"1.0", CHUNKED),
        (b"1.1", b"Transfer-Encoding: gzip, chunked\r\n"),
        (b"1.1", CHUNKED * 2),
        (b"1.1", b"Transfer-Encoding : chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: \x0bchunked\r\n"),
        (b"1.1", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
        (b"1.1", b"Content-Length: +5\r\n"),
        (b"1.1", b"Content-Length: 5, 6\r\n"),
    ],
)
def test_a_request_of_uncertain_length_is_refused_and_the_connection_closed(
    odd_collector: CollectorProcess, version: bytes, lengths: bytes
) -> None:
    """What follows it could be its body or another request: a proxy in front decides otherwise."""
    head = b"POST /v1/events HTTP/" + version + b"\r\nHost: x\r\n" + lengths + b"\r\n"
    with socket.create_connection(("127.0.0.1", odd_collector.port), timeout=10) as connection:
        connection.sendall(head + BEHIND)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    # Without the protocol's error body: on that, a client gives events up.
    assert b'"error"' not in answer


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/ping", "/v1/outboxes"])
def test_head_is_answered_as_get_is_without_the_body(
    odd_collector: CollectorProcess, path: str
) -> None:
    """As load balancers and monitors ask."""
    url = odd_collector.url + path
    got = requests.get(url, headers=odd_collector.headers, timeout=10)
    head = requests.head(url, headers=odd_collector.headers, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert requests.head(f"{odd_collector.url}/v1/ping", timeout=10).status_code == 401
