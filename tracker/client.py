"""Wires outbox, sync worker and trackers: one `Client` per outbox path in a process."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol, TypeVar

from tracker.errors import ConfigurationError, TrackerError
from tracker.outbox.outbox import Outbox
from tracker.outbox.schema import empty_outbox
from tracker.sessions import Sessions
from tracker.sync.flush import Flush, FlushResult
from tracker.sync.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.sync.destination import Destination

T = TypeVar("T")

_logger = logging.getLogger("tracker")


class Recorder(Protocol):
    """What a tracker needs: a way to the outbox, and nothing else of it."""

    config: APIConfig
    sessions: Sessions

    def record(self, event: Event) -> None:
        """Store an event; on return it is durable."""

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query of `tracker.queries` on what is stored here."""

    def flush(self, timeout: float | None) -> FlushResult:
        """Wait for what is pending."""

    def release(self, holder: object, timeout: float) -> FlushResult:
        """End a tracker's share; the last one's end closes the recorder."""


class Client:
    """What all trackers on one outbox path share in this process.

    Owns the outbox and the worker. `_registry` holds the clients, one per path, and
    `_registry_lock` guards it and every client's holders: the trackers that share it.
    """

    def __init__(self, config: APIConfig, destination: Callable[[], Destination] | None) -> None:
        self.config = config
        self.holders: weakref.WeakSet[object] = weakref.WeakSet()
        self._custom_destination = destination
        self.outbox = Outbox(config)
        self.sessions = Sessions(self.outbox)
        self.worker = Worker(self.outbox, config, destination or self._http)
        self.outbox.on_commit = self.worker.wake
        self.worker.start()

    def _http(self) -> Destination:
        from tracker.sync.http import HTTPDestination  # requests: only where it is needed

        return HTTPDestination(self.config, self.outbox.owner.outbox_id)

    def join(self, config: APIConfig) -> None:
        """Let another tracker share this client.

        A new API key replaces the old one, for a key may be rotated while events are pending.

        Raises:
            ConfigurationError: if another setting differs.
        """
        for item in dataclasses.fields(config):
            mine, others = getattr(self.config, item.name), getattr(config, item.name)
            if mine != others and item.name != "api_key":
                raise ConfigurationError(
                    f"another tracker in this process uses the outbox {config.outbox_path} with "
                    f"{item.name}={mine!r}; this one says {others!r}. Use the same configuration "
                    "for both, or give each its own outbox_path"
                )
        if config.api_key != self.config.api_key:
            self.config = config
            if self._custom_destination is None:
                self.worker.use(self._http)

    def record(self, event: Event) -> None:
        """Store an event; see `Outbox.append`."""
        self.outbox.append(event)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on the outbox, on a connection of its own: it may take its time.

        Raises:
            OutboxError: if the outbox cannot be read.
        """
        with self.outbox.snapshot() as connection:
            return query(connection)

    def flush(self, timeout: float | None) -> FlushResult:
        """Wait until what is pending now is settled; see `Flush`."""
        return Flush(self.outbox, self.worker).wait(timeout)

    def release(self, holder: object, timeout: float) -> FlushResult:
        """End one tracker's share. The last one uploads for `timeout` seconds and closes."""
        with _registry_lock:
            if holder not in self.holders:
                return FlushResult()
            self.holders.remove(holder)
            last = not self.holders
            if last:
                _registry.pop(self.config.outbox_path, None)
        return self.shut(timeout) if last else FlushResult()

    def shut(self, timeout: float) -> FlushResult:
        """Upload for at most `timeout` seconds, without waiting for a server that is not there."""
        try:
            result = Flush(self.outbox, self.worker).wait(timeout, patient=False)
        finally:
            self.worker.stop(then=self.outbox.close)
        return result


class DisabledClient:
    """Stands in for `Client` when the configuration says ``disabled``: does nothing."""

    def __init__(self, config: APIConfig) -> None:
        self.config = config
        self.sessions = Sessions(None)

    def record(self, event: Event) -> None:
        """Drop the event."""

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on an outbox without a row."""
        with empty_outbox() as connection:
            return query(connection)

    def flush(self, timeout: float | None) -> FlushResult:
        """Return at once."""
        return FlushResult()

    def release(self, holder: object, timeout: float) -> FlushResult:
        """Return at once."""
        return FlushResult()


_registry: dict[Path, Client] = {}
_registry_lock = threading.RLock()


def connect(
    config: APIConfig, holder: object, destination: Callable[[], Destination] | None = None
) -> Client | DisabledClient:
    """Return this process's client for the configuration's outbox, made on first use.

    Args:
        config: Settings.
        holder: Who shares the client from now on, until `Client.release` or its own end.
        destination: Makes what takes the uploads; by default HTTP to the configured base URL.

    Raises:
        OutboxError: if the outbox cannot be opened.
        ConfigurationError: if the configuration contradicts another tracker's on this outbox.
    """
    if config.disabled:
        return DisabledClient(config)
    with _registry_lock:
        client = _registry.get(config.outbox_path)
        if client is None:
            client = _registry[config.outbox_path] = Client(config, destination)
        else:
            client.join(config)
        client.holders.add(holder)
        return client


def _shut_all() -> None:
    """Spend at most each client's `exit_timeout` on uploading; everything is on disk already."""
    with _registry_lock:
        clients = list(_registry.values())
        _registry.clear()
    for client in clients:
        try:
            client.shut(client.config.exit_timeout)
        except TrackerError as error:
            _logger.error("at exit: %s", error)


atexit.register(_shut_all)


# --- fork ---------------------------------------------------------------------------------------
#
# SQLite connections, threads and held locks must not cross a fork. So every client comes to rest
# before it; in the parent it goes on, and in the child it begins afresh.

_paused: list[Client] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    _paused.extend(client for client in _registry.values() if client.outbox.pause())


def _after_fork_in_parent() -> None:
    for client in _paused:
        client.outbox.resume()
    _paused.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    _paused.clear()
    for client in _registry.values():
        client.outbox.restart_in_child()
        client.worker.restart_in_child()
        client.sessions.restart_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
