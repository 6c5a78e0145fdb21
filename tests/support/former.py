"""A PostgreSQL database of the version before: `events` is one table, with rows of many months."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy

import tests

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresServer

_SCHEMA = Path(tests.__file__).parent / "migration/fixtures/collector_2_postgresql.sql"
_DAY_MS = 86_400_000
_OUTBOXES = 5
_EVENTS = """
INSERT INTO events (client_id, outbox_id, seq, event_id, type, timestamp_ms, session_id, data,
                    digest, chain, received_at_ms, sent_at_ms)
SELECT 'former', '0000000' || n %% {outboxes} || '-0000-7000-8000-000000000000',
       n / {outboxes} + 1,
       substr(time, 1, 8) || '-' || substr(time, 9) || '-7000-8000-' || lpad(to_hex(n), 12, '0'),
       CASE n %% 4 WHEN 0 THEN 'llm.used' ELSE 'message.logged' END, ms, 's' || n / 50,
       '{{"role":"user","content":"' || n || '"}}', repeat('d', 64), repeat('c', 64), ms, ms
FROM (SELECT n, ms, lpad(to_hex(ms), 12, '0') AS time FROM
      (SELECT n, %s + n * %s::bigint AS ms FROM generate_series(0, %s - 1) AS n) AS numbered)
      AS timed
"""
_OUTSIDE = """
INSERT INTO events (client_id, outbox_id, seq, event_id, type, timestamp_ms, data, digest, chain,
                    received_at_ms, sent_at_ms)
VALUES ('former', '00000000-0000-7000-8000-000000000000', %s, %s, 'message.logged', %s, '{}', 'd',
        'c', %s, 1)
"""


def id_at(time_ms: int) -> str:
    """Return a UUIDv7 of a time, Unix milliseconds."""
    digits = f"{time_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7{uuid.uuid4().hex[:3]}-8000-{uuid.uuid4().hex[:12]}"


def former_database(server: PostgresServer, count: int = 2_000, options: str = "") -> str:
    """Return the URL of a database with so many events of five outboxes over the last year.

    Three more have ids of another time than their own: two of a clock that is far ahead, and one
    that is no time at all.
    """
    url = server.new_database(options)
    engine = sqlalchemy.create_engine(url)
    now_ms = time.time_ns() // 1_000_000
    with engine.begin() as connection:
        connection.exec_driver_sql(_SCHEMA.read_text(encoding="utf-8"))
        step = 360 * _DAY_MS // count
        statement = _EVENTS.format(outboxes=_OUTBOXES)
        connection.exec_driver_sql(statement, (now_ms - step * count, step, count))
        ahead = [id_at(now_ms + days * _DAY_MS) for days in (400, 4_000)]
        for number, event_id in enumerate([*ahead, f"fff{str(uuid.uuid4())[3:]}"]):
            seq = count // _OUTBOXES + 1 + number
            connection.exec_driver_sql(_OUTSIDE, (seq, event_id, now_ms, now_ms))
    engine.dispose()
    return url
