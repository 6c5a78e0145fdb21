"""`Intake`: takes an event from a logging call into the outbox, or into memory meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tracker import log
from tracker.errors import OutboxDamagedError, OutboxError, OutboxFullError
from tracker.events import MESSAGE_LOGGED, TOOL_CALLED
from tracker.outbox.store import ledger
from tracker.outbox.store.memory_buffer import MemoryBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.outbox.store.ballast import Ballast
    from tracker.outbox.store.connections import Connections
    from tracker.outbox.store.transaction import Transaction
    from tracker.outbox.store.trouble import StorageTrouble


_MESSAGES = (MESSAGE_LOGGED, TOOL_CALLED)
_OF_SESSION = f"FROM events WHERE session_id = ? AND type IN {_MESSAGES}"
_SAID = f"SELECT seq, type, data {_OF_SESSION} ORDER BY seq"
_NEWEST = f"SELECT max(seq) {_OF_SESSION}"


class Repairs(Protocol):
    """What replaces a damaged outbox."""

    def repair(self, error: OutboxDamagedError, generation: int) -> bool:
        """Replace the damaged file of `generation`; return False if that is not possible now."""


class Intake:
    """Stores events; if storage fails, `on_error` decides whether to keep them in memory or raise.

    Owns the memory buffer, whose lock is taken before every other lock of the outbox.

    Args:
        config: Settings: `on_error` and the limits of the buffer are used here.
        connections: Where events are stored.
        supervisor: Replaces the outbox if it is damaged.
        ballast: Once it is spent, new events are kept out of the room that it gave up.
        trouble: Records what could not be stored.
        check_size: Raises OutboxFullError if there is no room for the given number of events; None
            if the outbox has no size limit.

    Attributes:
        buffer: The events in memory.
        on_commit: Called after each append that succeeded.
    """

    def __init__(
        self, config: APIConfig, connections: Connections, supervisor: Repairs, ballast: Ballast,
        trouble: StorageTrouble, check_size: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self._config = config
        self._connections = connections
        self._supervisor = supervisor
        self._ballast = ballast
        self._trouble = trouble
        self._check_size = check_size
        self.on_commit: Callable[[], None] = _nothing
        self.restart_in_child()

    def restart_in_child(self) -> None:
        """Start with an empty buffer: the events in memory at a fork are the parent's to write."""
        config = self._config
        self.buffer = MemoryBuffer(config.memory_buffer_events, config.memory_buffer_bytes)

    def append(self, event: Event) -> None:
        """Store `event`. It is durable on return, unless storage failed and `on_error` degrades.

        Raises:
            OutboxError: if it could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        generation = self._connections.generation
        try:
            buffer = self.buffer
            if buffer.events or buffer.discarded:  # `in_use`, without the cost of its call
                if not buffer.should_retry():
                    buffer.hold(event)
                    return
                self.drain()
            if self._ballast.spent or self._check_size is not None:
                self._check_room(1)
            self._connections.writer.append(event)
        except OutboxError as error:
            self._handle_failure([event], error, generation)
        else:
            if self._trouble.said is not None:
                self.note_success()
            self.on_commit()

    def append_all(self, events: Sequence[Event]) -> None:
        """Store `events` in one transaction, all or none of them; otherwise like `append`.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        generation = self._connections.generation
        if self.buffer.in_use and not self.buffer.should_retry():
            self._hold(events)
            return
        try:
            self.drain()
            self._check_room(len(events))
            self._connections.writer.append_all(events)
        except OutboxError as error:
            self._handle_failure(events, error, generation)
        else:
            if self._trouble.said is not None:
                self.note_success()
            self.on_commit()

    def count_dropped(self) -> None:
        """Count an event that the application's hook dropped as discarded, now or once possible.

        Raises:
            OutboxError: if it could not be counted yet and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        with self.buffer.lock:
            self.buffer.discard(ledger.BY_HOOK)
            if not self.buffer.should_retry():
                return
            try:
                self._drain()
            except OutboxError:
                if self._config.on_error == "raise":
                    raise

    def append_new(
        self, session_id: str, choose: Callable[[list[tuple[str, str]]], list[Event]]
    ) -> None:
        """Store events that are chosen by what is stored of a conversation, in one transaction.

        `choose` gets type and data of its messages and tool calls in the order of logging. It runs
        outside of the transaction, and again if another thread or process logged any meanwhile.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        stored = False
        while not stored:
            said, newest = self._said(session_id)
            events = choose(said)
            stored = not events or self._append_after(newest, session_id, events)

    def _said(self, session_id: str) -> tuple[list[tuple[str, str]], int]:
        """Return the messages and tool calls of a conversation, and the seq of the newest.

        Of an outbox that cannot be read, those in memory are all there is.
        """
        said: list[tuple[str, str]] = []
        newest = 0
        try:
            with self._connections.reading() as connection:
                for seq, *row in connection.exec_driver_sql(_SAID, (session_id,)):
                    said.append((str(row[0]), str(row[1])))
                    newest = seq
        except OutboxError as error:
            if self._config.on_error == "raise":
                raise
            self.note_trouble(error)
        held, *_ = self.buffer.held()
        return said + [
            (event.type, event.data)
            for event in held
            if event.session_id == session_id and event.type in _MESSAGES
        ], newest

    def _append_after(self, newest: int, session_id: str, events: Sequence[Event]) -> bool:
        """Store `events` if `newest` is still the newest message; return False if it is not."""

        def job(transaction: Transaction) -> bool:
            found = transaction.connection.exec_driver_sql(_NEWEST, (session_id,)).scalar()
            if (found or 0) != newest:
                return False
            for event in events:
                transaction.append(event)
            return True

        generation = self._connections.generation
        if self.buffer.in_use and not self.buffer.should_retry():
            self._hold(events)
            return True
        try:
            self.drain()
            self._check_room(len(events))
            stored = self._connections.writer.run(job)
        except OutboxError as error:
            self._handle_failure(events, error, generation)
            return True
        if stored:
            if self._trouble.said is not None:
                self.note_success()
            self.on_commit()
        return stored

    def drain(self) -> None:
        """Write the events in memory to the outbox, if there are any.

        Raises:
            OutboxError: if storage still fails; all of them stay in memory.
        """
        if self.buffer.in_use:
            with self.buffer.lock:  # later callers wait here, so that the order is kept
                if self.buffer.in_use:
                    self._drain()

    def _drain(self) -> None:
        events, discarded = self.buffer.held()

        def job(transaction: Transaction) -> None:
            # An earlier drain may have been interrupted right after its commit.
            transaction.append_all_missing(events)
            _discard(discarded, transaction)

        try:
            self._check_room(len(events))
            self._connections.writer.run(job)
        except OutboxError as error:
            self.note_trouble(error)
            self.buffer.note_failure(error)
            raise
        self._trouble.said = None
        self.buffer.written(events, discarded)

    def drain_before_close(self) -> bool:
        """Write the events in memory before a close; log it and return False if that fails."""
        generation = self._connections.generation
        try:
            try:
                self.drain()
            except OutboxDamagedError as error:  # or another process put a new file at the path
                if not self._supervisor.repair(error, generation):
                    raise
                self.drain()
        except OutboxError as error:
            log.error(
                "%d events in memory are lost, because the outbox cannot be written: %s",
                len(self.buffer) + sum(self.buffer.discarded.values()),
                error,
            )
            if isinstance(error, OutboxFullError):
                self._count_lost()
            return False
        return True

    def _count_lost(self) -> None:
        """Count the events in memory as discarded.

        An outbox that is full by `max_outbox_bytes` takes no event, but its account can change.
        """
        with self.buffer.lock:
            events, discarded = self.buffer.held()

            def job(transaction: Transaction) -> None:
                # An earlier drain may have been interrupted right after its commit.
                lost = sum(not transaction.holds(event.event_id) for event in events)
                _discard(discarded, transaction)
                _discard({ledger.BY_BUFFER: lost}, transaction)

            try:
                self._connections.writer.run(job)
            except OutboxError as error:
                log.info("nor could they be counted as discarded: %s", error)
            else:
                self.buffer.written(events, discarded)

    def _check_room(self, events: int) -> None:
        """Keep new events out of the room that uploading and pruning need, on disk and in the file.

        Raises:
            OutboxError: if there is no room.
        """
        if self._ballast.spent:
            path = self._connections.path
            raise OutboxError(f"the disk is full; the outbox {path} waits for room")
        if self._check_size is not None:
            self._check_size(events)

    def _handle_failure(self, events: Sequence[Event], error: OutboxError, generation: int) -> None:
        """Retry in the file that replaces a damaged one; otherwise apply `on_error`."""
        self.note_trouble(error)
        if isinstance(error, OutboxDamagedError) and self._retry(events, error, generation):
            return
        if self._config.on_error == "raise":
            raise error
        self.buffer.note_failure(error)
        self._hold(events)

    def _retry(self, events: Sequence[Event], error: OutboxDamagedError, generation: int) -> bool:
        try:
            if not self._supervisor.repair(error, generation):
                return False
            self._connections.writer.run(lambda transaction: transaction.append_all_missing(events))
        except OutboxError as again:
            self.note_trouble(again)
            return False
        self._trouble.said = None
        self.on_commit()
        return True

    def _hold(self, events: Sequence[Event]) -> None:
        for event in events:
            self.buffer.hold(event)

    def note_trouble(self, error: OutboxError) -> None:
        """Make the sync thread check the outbox at once, and `health` report the error."""
        self._trouble.note(error)
        self._connections.next_check_at = 0.0

    def note_success(self) -> None:
        """Make `health` report no error, unless events are still waiting in memory."""
        if not (self.buffer.in_use or self._ballast.spent):
            self._trouble.said = None


def _discard(counts: Mapping[str, int], transaction: Transaction) -> None:
    for reason, count in counts.items():
        ledger.discard(transaction.connection, reason, count)


def _nothing() -> None:
    """Stand in for `on_commit` until a worker is set."""
