"""The trigger by which PostgreSQL tells every process on it that API keys have changed.

A trigger, not a statement of the commands: it also tells of a change by another version or by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

CHANNEL = "tracker_keys"
"""Where PostgreSQL tells that keys have changed; the message is empty."""

IS_SET = """EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'api_keys'::regclass
    AND tgname = 'tracker_keys_changed' AND tgenabled IN ('O', 'A'))"""
"""An expression of SQL: whether PostgreSQL tells of changes."""

# New keys need no message: that a key is unknown is never remembered.
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION tracker_keys_changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('{CHANNEL}', ''); RETURN NULL; END $$
"""
_TRIGGER = """
CREATE TRIGGER tracker_keys_changed AFTER UPDATE OR DELETE OR TRUNCATE ON api_keys
FOR EACH STATEMENT EXECUTE FUNCTION tracker_keys_changed()
"""
_EXISTS = """SELECT 1 FROM pg_trigger WHERE tgrelid = 'api_keys'::regclass
    AND tgname = 'tracker_keys_changed'"""


def is_missing(connection: Connection) -> bool:
    """Return True if there is no trigger in PostgreSQL, not even a disabled one."""
    return connection.exec_driver_sql(_EXISTS).first() is None


def add_trigger(connection: Connection) -> None:
    """Create the trigger in PostgreSQL if it is missing; one that is disabled stays so."""
    if connection.dialect.name != "postgresql":
        return
    if is_missing(connection):
        connection.exec_driver_sql(_FUNCTION)
        connection.exec_driver_sql(_TRIGGER)
