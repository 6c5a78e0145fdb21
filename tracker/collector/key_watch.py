"""`KeyWatch`: hears from PostgreSQL of each change of API keys, and knows whether it would."""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from tracker import clock
from tracker.collector.database import StorageError
from tracker.collector.engine import make_engine, parse
from tracker.collector.key_trigger import CHANNEL, IS_SET
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

    from tracker.collector.database import Database

logger = logging.getLogger(__name__)

_PROOF_SECONDS = 1.0
_VALID_SECONDS = 3.0
"""How long a proof holds: two of them may come late."""
_ASK_SECONDS = 5.0
_RETRY_SECONDS = 2.0
_DEAF_SECONDS = 60.0
"""How long to wait after a connection that has never heard anything."""

# The message is lost with a crash, and no harm is done: so its commit waits for no disk.
_ASK = f"""
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s), {IS_SET}
"""


class _DeafError(TrackerError):
    """A message did not come back."""

    def __init__(self) -> None:
        super().__init__("no NOTIFY comes back, as behind PgBouncer in transaction mode")


class KeyWatch:
    """Listens on a connection of its own for changes of API keys.

    A LISTEN can be deaf without an error: behind PgBouncer in transaction mode, on another
    database, on a connection that the network has dropped. So each second this sends itself a
    message by way of `database`, and relies on the connection for three seconds after one that it
    heard. The connection itself says nothing meanwhile, since PgBouncer would pass on messages
    together with an answer.

    As a context manager it listens within the block, in a thread of its own. Any thread may call
    `era`.

    Args:
        database: PostgreSQL. Its owner closes it afterwards.
        direct: URL of the same database for the connection that listens.

    Raises:
        ConfigurationError: if `direct` is not the URL of a PostgreSQL database.
    """

    def __init__(self, database: Database, direct: str | Path) -> None:
        url = parse(direct)
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError("only PostgreSQL tells of changes; give the URL of one")
        self._database = database
        self._engine = make_engine(url, connections=1)
        self._era = 0
        self._proved_until: float | None = None
        self._settled = threading.Event()
        self._trouble: str | None = None
        self._stopping = False
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="key watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._waker.close()
        self._thread.join(_ASK_SECONDS)
        self._woken.close()
        self._engine.dispose()

    def era(self) -> int | None:
        """Return a number that is another one after each change of keys; None if none is heard."""
        until = self._proved_until
        return None if until is None or clock.monotonic() >= until else self._era

    def trouble(self) -> str | None:
        """Wait until it is known whether changes are heard; return why not, or None if they are."""
        self._settled.wait(_VALID_SECONDS + _ASK_SECONDS)
        return self._trouble

    def _run(self) -> None:
        import psycopg

        while not self._stopping:
            pause = _RETRY_SECONDS
            try:
                with self._listening() as (connection, own):
                    self._hear(connection, own)
            except (psycopg.Error, SQLAlchemyError, TrackerError) as error:
                self._trouble = str(error).strip()
                if self._proved_until is not None:
                    logger.warning("each request looks its API key up again: %s", self._trouble)
                elif isinstance(error, _DeafError):
                    pause = _DEAF_SECONDS
            self._forget()
            self._settled.set()
            self._sleep(pause)

    def _sleep(self, seconds: float, connection: Any = None) -> None:
        """Wait until there is something to read, or for the end."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if connection is not None:
            poll.register(connection.socket, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[tuple[Any, str]]:
        """Yield a connection of libpq that listens, and the name of its own channel."""
        own = f"tracker_proof_{secrets.token_hex(8)}"
        pooled = self._engine.raw_connection()
        try:
            driver: Any = pooled.driver_connection
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
            driver.execute(f"LISTEN {own}")
            yield driver.pgconn, own
        finally:
            pooled.invalidate()

    def _hear(self, connection: Any, own: str) -> None:
        """Take in messages until this object is closed.

        Raises:
            _DeafError: if none came back in time.
        """
        self._forget()  # from here on nothing is missed
        heard_at = clock.monotonic()
        asked_at, token = float("-inf"), ""
        while not self._stopping:
            now = clock.monotonic()
            if now - heard_at >= _VALID_SECONDS:
                raise _DeafError
            if now - asked_at >= _PROOF_SECONDS:
                asked_at, token = now, secrets.token_hex(8)
                self._ask(own, token)
            self._sleep(asked_at + _PROOF_SECONDS - clock.monotonic(), connection)
            connection.consume_input()
            while (message := connection.notifies()) is not None:
                if message.relname.decode() == CHANNEL:
                    self._era += 1
                elif message.extra.decode() == token:
                    heard_at = asked_at
                    self._proved_until = heard_at + _VALID_SECONDS
                    self._trouble = None
                    self._settled.set()

    def _ask(self, channel: str, token: str) -> None:
        """Let the database send a message to this object, on another connection.

        Raises:
            StorageError: if it cannot, or does not tell of changes.
        """
        with self._database.reading(_ASK_SECONDS) as connection:
            row = connection.exec_driver_sql(_ASK, (channel, token)).one()
            if not row[-1]:
                raise StorageError("the trigger tracker_keys_changed is missing or disabled")

    def _forget(self) -> None:
        self._proved_until = None
        self._era += 1
