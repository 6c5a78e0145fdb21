"""Metrics for Prometheus, with the extra [prometheus]: a `Meter`, and what answers for it."""

from __future__ import annotations

import os
import socketserver
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from tracker.collector.meter import Meter

if TYPE_CHECKING:
    import socket

    from typing_extensions import Self

_CLIENT_SECONDS = 10.0
_STOP_SECONDS = 5.0
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PrometheusMeter(Meter):
    """Counts in metrics of Prometheus. All workers of one machine share them.

    Attributes:
        registry: What is exposed.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(self.registry)
            own = None  # each process writes into files, of which the registry shows the sums
        self._requests = Counter(
            "tracker_collector_requests", "Answers, by route and status.", ["route", "status"],
            registry=own,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "tracker_collector_request_seconds", "From the head of a request to its answer.",
            ["route"], registry=own, buckets=_BUCKETS,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "tracker_collector_batch_seconds", "Checking and storing of a batch.",
            registry=own, buckets=_BUCKETS,
        )  # fmt: skip
        self._events = Counter(
            "tracker_collector_events", "Events of stored batches, by what became of them.",
            ["outcome"], registry=own,
        )  # fmt: skip
        self._failures = Counter(
            "tracker_collector_database_failures", "Answers 503 because of the database.",
            ["reason"], registry=own,
        )  # fmt: skip
        self._bodies = Gauge(
            "tracker_collector_bodies", "Requests whose body is read or stored now.",
            registry=own, multiprocess_mode="livesum",
        )  # fmt: skip
        self._connections = Gauge(
            "tracker_collector_database_connections", "Connections to the database in use now.",
            registry=own, multiprocess_mode="livesum",
        )  # fmt: skip
        self._keys = Counter(
            "tracker_collector_key_lookups", "Keys of requests, by where they were found.",
            ["where"], registry=own,
        )  # fmt: skip
        self._replicated = Gauge(
            "tracker_collector_replicated", "0 after a write that was not replicated as required.",
            registry=own, multiprocess_mode="livemin",
        )  # fmt: skip
        self._replicated.set(1)
        self._behind = Gauge(
            "tracker_collector_roll_up_behind",
            "Ids of events that are not rolled up yet, where this server does it.",
            registry=own, multiprocess_mode="livemax",
        )  # fmt: skip
        self._outcomes = [
            self._events.labels(name) for name in ("accepted", "duplicate", "rejected")
        ]
        self._in_memory, self._in_database = map(self._keys.labels, ("memory", "database"))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def stored(self, accepted: int, duplicates: int, rejected: int, seconds: float) -> None:
        """Count a batch and its events."""
        self._batch_seconds.observe(seconds)
        for outcome, count in zip(self._outcomes, (accepted, duplicates, rejected), strict=True):
            if count:
                outcome.inc(count)
        self._replicated.set(1)

    def failed(self, *, replicated: bool) -> None:
        """Count a failure of the database."""
        self._failures.labels("unavailable" if replicated else "not_replicated").inc()
        if not replicated:
            self._replicated.set(0)

    def holds_body(self, change: int) -> None:
        """Count a body more or less."""
        self._bodies.inc(change)

    def uses_connection(self, change: int) -> None:
        """Count a connection more or less."""
        self._connections.inc(change)

    def rolls_up(self, behind: int) -> None:
        """Note how far the roll-ups are behind."""
        self._behind.set(behind)

    def looked_up(self, *, known: bool) -> None:
        """Count a key."""
        (self._in_memory if known else self._in_database).inc()


class Exposition:
    """Answers requests for the metrics, in threads of its own, within the block.

    Args:
        listener: A listening socket, which other processes may share. The caller owns it.
        registry: The metrics.
    """

    def __init__(self, listener: socket.socket, registry: Any) -> None:
        listener.setblocking(False)  # another process may have been faster
        self._server = _Server(listener.getsockname(), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener
        self._server.setup_environ()
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(_STOP_SECONDS)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    server_name, server_port = "tracker-collector", 0  # what binding would have looked up

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_CLIENT_SECONDS)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that end early."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""
