"""`Client`: connects an outbox, its sync worker and its trackers; one per outbox and process."""

from __future__ import annotations

import atexit
import dataclasses
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tracker import (
    forks,
    late_imports,  # noqa: F401 - its exit handler has to be older, and so to run after ours
    log,
    own_work,
)
from tracker.clock import monotonic
from tracker.erasure import ErasureResult, subject_of
from tracker.errors import ConfigurationError, OutboxDamagedError, OutboxError
from tracker.health import Health
from tracker.once import Once
from tracker.outbox import Earlier, Outbox, empty_outbox, file_identity, ledger
from tracker.sessions import Sessions
from tracker.sync.flush import Flush, FlushResult
from tracker.sync.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.sync.destination import Destination

T = TypeVar("T")

_MAY_DIFFER = ("debug", "api_key", "api_key_file", "outbox_path")
"""Settings that trackers of one outbox need not share: see `Client.join`."""


class Recorder(Protocol):
    """What a tracker needs of a client."""

    @property
    def config(self) -> APIConfig:
        """The settings in use."""

    @property
    def sessions(self) -> Sessions:
        """The conversations known to this process."""

    def record(self, event: Event) -> None:
        """Store an event durably."""

    def record_all(self, events: Sequence[Event]) -> None:
        """Store events durably in one transaction, all or none."""

    def count_dropped(self) -> None:
        """Count an event that the application's hook dropped as discarded."""

    def record_new(
        self, session_id: str, choose: Callable[[list[tuple[str, str]]], list[Event]]
    ) -> None:
        """Store events chosen by what is stored of a conversation, in one transaction."""

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query of `tracker.queries` on the stored events."""

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Erase the data stored about a user."""

    def flush(self, timeout: float | None) -> FlushResult:
        """Wait until pending events are delivered."""

    def health(self) -> Health:
        """Return the state of storage and uploading."""

    def hurry(self) -> None:
        """Upload now instead of after the current pause."""

    def note_otel_dropped(self, number: int) -> None:
        """Count spans and log records of OpenTelemetry that could not be stored."""

    def release(self, holder: object, timeout: float) -> FlushResult:
        """Release a tracker's share; releasing the last one closes the recorder."""


class Client:
    """Shared by all trackers on one outbox in this process.

    Owns the outbox and the worker. `_registry` maps paths to clients; `_registry_lock` guards it
    and the holders of every client, which are the trackers that share it.
    """

    def __init__(self, config: APIConfig, destination: Callable[[], Destination] | None) -> None:
        self.config = config
        self._otel_dropped = 0
        self.holders: weakref.WeakSet[object] = weakref.WeakSet()
        self._custom_destination = destination
        self._warned = Once()
        self.outbox = Outbox(config)
        self.sessions = Sessions(self.outbox)
        self.worker = Worker(self.outbox, config, destination or self._http)
        self.outbox.on_commit = self.worker.wake
        self._told = self._settled_so_far()
        log.debug(
            "%s: opened; uploading to %s as client %s",
            config.outbox_path,
            config.destination_url
            if destination is None
            else "a destination of the application's own",
            config.client_id,
        )
        _living.add(self)
        self.worker.start()

    def _settled_so_far(self) -> tuple[int, int] | None:
        """Return how many events are delivered and dead; None if that cannot be read."""
        try:
            with self.outbox.reading() as connection:
                book = ledger.read(connection)
        except OutboxError:
            return None  # the first flush counts from its own start
        return book.delivered, book.dead

    def _http(self) -> Destination:
        # requests, and what OTLP needs: only where it is needed
        if self.config.protocol == "otlp":
            from tracker.sync.otlp import OTLPDestination

            owner = self.outbox.owner
            earlier = Earlier(self.outbox.reading)
            return OTLPDestination(self.config, owner.outbox_id, owner.created_at_ms, earlier)
        from tracker.sync.http import HTTPDestination

        return HTTPDestination(self.config, self.outbox.owner.outbox_id)

    def join(self, config: APIConfig, destination: Callable[[], Destination] | None) -> None:
        """Let another tracker share this client.

        A new API key replaces the old one, since a key may be rotated while events are pending.

        Raises:
            ConfigurationError: if another setting differs, or the destination does.
        """
        for item in dataclasses.fields(config):
            mine, others = getattr(self.config, item.name), getattr(config, item.name)
            # Another path of the same file is allowed: see `_find`.
            if mine != others and item.compare and item.name not in _MAY_DIFFER:
                shown = f"={mine!r}; this one says {others!r}" if item.repr else " set otherwise"
                raise ConfigurationError(
                    f"another tracker in this process uses the outbox {config.outbox_path} with "
                    f"{item.name}{shown}. Use the same configuration for both, or give each its "
                    "own outbox_path"
                )
        if destination is not None and destination != self._custom_destination:
            self._keep_destination()
        if (config.api_key, config.api_key_file) != (self.config.api_key, self.config.api_key_file):
            self.config = dataclasses.replace(config, outbox_path=self.config.outbox_path)
            if self._custom_destination is None:
                self.worker.use(self._http, self.config)

    def _keep_destination(self) -> None:
        """Refuse another destination in place of the collector; warn of one in place of another.

        Two functions may well make the same, as ``lambda: received`` written twice does.
        """
        path = self.outbox.path
        if self._custom_destination is None:
            raise ConfigurationError(
                f"another tracker in this process uploads the outbox {path} to the collector; this "
                "one says destination=…. Give both the same destination, or each its own "
                "outbox_path"
            )
        if self._warned.is_new():
            log.warning(
                "another tracker in this process uploads the outbox %s to a destination of its "
                "own; the destination given now is not used. Give both the same function, or each "
                "its own outbox_path",
                path,
            )

    def record(self, event: Event) -> None:
        """Store an event whose id was made in this call by `new_id`; see `Outbox.append`.

        `new_id` has already checked whether this process is a forked child.
        """
        if own_work.watched:
            own_work.run(self.outbox.intake.append, event)
        else:
            self.outbox.intake.append(event)

    def record_all(self, events: Sequence[Event]) -> None:
        """Store events together; see `Outbox.append_all`."""
        forks.check()
        try:
            own_work.run(self.outbox.append_all, events)
        except OutboxError:
            # The calls have noted the conversations as if their events were stored: look again.
            self.sessions.forget({event.session_id for event in events})
            raise

    def count_dropped(self) -> None:
        """Count an event that the application's hook dropped; see `Intake.count_dropped`."""
        forks.check()
        own_work.run(self.outbox.intake.count_dropped)

    def record_new(
        self, session_id: str, choose: Callable[[list[tuple[str, str]]], list[Event]]
    ) -> None:
        """Store events chosen by what is stored of a conversation; see `Intake.append_new`."""
        forks.check()
        own_work.run(self.outbox.intake.append_new, session_id, choose)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a separate connection to the outbox, so that it may be slow.

        Raises:
            OutboxError: if the outbox cannot be read.
        """
        forks.check()
        return own_work.run(self._read, query)

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with self.outbox.snapshot() as connection:
                return query(connection)
        except OutboxDamagedError:
            self.outbox.maintain(now=True)
        with self.outbox.snapshot() as connection:
            return query(connection)

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Erase the data stored about a user; see `Outbox.erase`."""
        forks.check()
        return own_work.run(self.outbox.erase, user_id, said)

    def flush(self, timeout: float | None) -> FlushResult:
        """Wait until the events that are pending now are settled; see `Flush`."""
        forks.check()
        return own_work.run(self._flush, timeout)

    def _flush(self, timeout: float | None) -> FlushResult:
        try:
            flush = Flush(self.outbox, self.worker, checkpoint=True)
            return self._since_the_last(flush, flush.wait(timeout))
        except OutboxDamagedError:
            self.outbox.maintain(now=True)
        flush = Flush(self.outbox, self.worker, checkpoint=True)
        return self._since_the_last(flush, flush.wait(timeout))

    def _since_the_last(self, flush: Flush, result: FlushResult) -> FlushResult:
        """Add the events that were settled before the call and are in no earlier result."""
        before = flush.settled_before
        told = before if self._told is None else self._told
        self._told = (before[0] + result.delivered, before[1] + result.dead)
        return dataclasses.replace(
            result,
            delivered=result.delivered + max(0, before[0] - told[0]),
            dead=result.dead + max(0, before[1] - told[1]),
        )

    def health(self) -> Health:
        """Return the state of storage and uploading; see `BaseTracker.health`."""
        forks.check()
        return dataclasses.replace(
            own_work.run(self.outbox.health), otel_dropped=self._otel_dropped
        )

    def hurry(self) -> None:
        """Upload now instead of after the current pause."""
        forks.check()
        self.worker.hurry()

    def note_otel_dropped(self, number: int) -> None:
        """Count spans and log records of OpenTelemetry that could not be stored."""
        self._otel_dropped += number

    def release(self, holder: object, timeout: float) -> FlushResult:
        """Release a tracker's share. The last one uploads for `timeout` seconds and closes."""
        forks.check()
        with _registry_lock:
            if holder not in self.holders:
                return FlushResult()
            self.holders.remove(holder)
            last = not self.holders
            if last:
                _registry.pop(self.config.outbox_path, None)
        return self.shut(timeout) if last else FlushResult()

    def shut(self, timeout: float) -> FlushResult:
        """Upload for at most `timeout` seconds, or until an attempt fails, and close.

        Storage errors are logged and not raised: closing must always be possible.
        """
        return own_work.run(self._stop, timeout, then=self._end)

    def leave(self) -> None:
        """Upload for `exit_timeout` seconds as the interpreter exits, without closing anything.

        Daemon threads and other exit handlers may log until the process ends: their events are
        stored, and uploaded after the next start.
        """
        own_work.run(self._stop, self.config.exit_timeout, then=self.outbox.rest)

    def _stop(self, timeout: float, then: Callable[[], None]) -> FlushResult:
        try:
            flush = Flush(self.outbox, self.worker)
            return self._since_the_last(flush, flush.wait(timeout, patient=False))
        except OutboxError as error:
            log.error("an error occurred while closing: %s", error)
            return FlushResult()
        finally:
            self.worker.stop(then=then)

    def _end(self) -> None:
        """Close the outbox. Called when the sync thread, which uses it last, has ended."""
        self.outbox.close()
        log.debug("%s: closed", self.outbox.path)
        _living.discard(self)


class DisabledClient:
    """Does nothing, in place of a `Client`, when the configuration says ``disabled``."""

    def __init__(self, config: APIConfig) -> None:
        self.config = config
        self.sessions = Sessions(None)

    def record(self, event: Event) -> None:
        """Drop the event."""

    def record_all(self, events: Sequence[Event]) -> None:
        """Drop the events."""

    def count_dropped(self) -> None:
        """Do nothing."""

    def record_new(
        self, session_id: str, choose: Callable[[list[tuple[str, str]]], list[Event]]
    ) -> None:
        """Choose as if nothing were stored, and drop the events."""
        choose([])

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on an empty outbox."""
        with empty_outbox(self.config.client_id, self.config.destination_url) as connection:
            return query(connection)

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Erase nothing, since nothing is stored."""
        return ErasureResult(*subject_of(user_id))

    def flush(self, timeout: float | None) -> FlushResult:
        """Return at once."""
        return FlushResult()

    def health(self) -> Health:
        """Return that it is disabled."""
        return Health(enabled=False)

    def hurry(self) -> None:
        """Do nothing."""

    def note_otel_dropped(self, number: int) -> None:
        """Do nothing."""

    def release(self, holder: object, timeout: float) -> FlushResult:
        """Return at once."""
        return FlushResult()


_RESTING_SECONDS = 5.0
"""How long the interpreter's end waits for all sync threads together to finish preparations."""
_registry: dict[Path, Client] = {}
_registry_lock = threading.RLock()
_living: set[Client] = set()
"""Clients whose outbox is open: those in the registry and those that a last request keeps open."""


def connect(
    config: APIConfig, holder: object, destination: Callable[[], Destination] | None = None
) -> Client | DisabledClient:
    """Return this process's client for the configured outbox; it is made on first use.

    Args:
        config: Settings.
        holder: The tracker that shares the client from now on, until `Client.release` or until it
            is collected.
        destination: Makes the destination of uploads; by default HTTP to the configured base URL.

    Raises:
        OutboxError: if the outbox cannot be opened.
        ConfigurationError: if the configuration conflicts with another tracker's on this outbox.
    """
    if config.disabled:
        return DisabledClient(config)
    forks.check()
    if config.debug:
        from tracker import stderr  # only on request

        stderr.show()
    with _registry_lock:
        client = _find(config.outbox_path)
        if client is None:
            client = own_work.run(Client, config, destination)
            _registry[config.outbox_path] = client
        else:
            client.join(config, destination)
        client.holders.add(holder)
        return client


def _find(path: Path) -> Client | None:
    """Return the client of the outbox at `path`, even if it was opened by another path."""
    if path in _registry:
        return _registry[path]
    file = file_identity(path)
    if file is None:
        return None
    return next((each for each in _registry.values() if each.outbox.connections.file == file), None)


def _leave_all() -> None:
    """Upload for at most `exit_timeout` seconds per client; all events are on disk already."""
    with _registry_lock:
        clients = list(_registry.values())
        _registry.clear()
    for client in clients:
        try:
            client.leave()
        except Exception:  # noqa: BLE001 - the other outboxes must be closed too
            log.error("an outbox could not be closed at exit; its events are safe", exc_info=True)
    # From here on the interpreter may end our threads, also those of closed outboxes.
    until = monotonic() + _RESTING_SECONDS
    for client in list(_living):
        client.worker.rest_at_exit(until)


atexit.register(_leave_all)


# --- fork ---------------------------------------------------------------------------------------
#
# SQLite connections, threads, held locks and half-imported modules must not cross a fork. So every
# client is paused before it, continues in the parent and starts again in the child. Where a fork
# calls no hooks, the child does what it can in its first call: see `tracker.forks`.

_resting: list[Client] = []
_paused: list[Client] = []


def _before_fork() -> None:
    frame = sys._getframe().f_back
    _registry_lock.acquire()
    for client in list(_living):
        try:
            _resting.append(client)
            client.worker.rest_before_fork()
            if frame is None:  # a fork in C, from a thread that runs no Python
                client.outbox.close_connections()
                continue
            if own_work.run(client.outbox.pause, frame):
                _paused.append(client)
        except BaseException:  # noqa: BLE001 - if raised, it would be printed and the fork would go on
            log.error("an outbox could not be paused before a fork", exc_info=True)

    log.lock.acquire()


def _after_fork_in_parent() -> None:
    log.lock.release()
    try:
        while _paused:
            _paused.pop().outbox.connections.resume()
    finally:
        try:
            while _resting:
                _resting.pop().worker.go_on()
        finally:
            _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    _paused.clear()
    _resting.clear()
    for client in _living:
        client.outbox.connections.close_inherited()
        client.outbox.restart_in_child()
        client.worker.restart_in_child()
        client.sessions.restart_in_child()
    _living.intersection_update(_registry.values())  # the parent closes the others


forks.around(_before_fork, _after_fork_in_parent)
forks.in_child(forks.Stage.CLIENTS, _after_fork_in_child)
