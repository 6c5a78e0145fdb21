"""Whatever somebody does to the rows by hand, `verify` finds it and names the place."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from tests.support.cli import an_event, fill, settle
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.outbox.integrity.verify import IntegrityReport

COUNT = 12
KEY = b"0123456789abcdef"
COLUMNS = ("event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id", "data",
           "digest", "chain", "delivered_at_ms", "dead_at_ms", "context", "trace", "salt",
           "sealed")  # fmt: skip
STATES = ("delivered_at_ms", "dead_at_ms")

seqs = st.integers(1, COUNT)
changes = st.tuples(st.just("change"), seqs, st.sampled_from(COLUMNS), st.integers(0, 2))
deletions = st.tuples(st.just("delete"), seqs, st.integers(1, COUNT))
swaps = st.tuples(st.just("swap"), seqs, seqs).filter(lambda edit: edit[1] != edit[2])
insertions = st.tuples(st.just("insert"), st.integers(COUNT + 1, COUNT + 3))
moves = st.tuples(st.just("move"), seqs, st.integers(-3, COUNT + 5)).filter(
    lambda edit: edit[1] != edit[2]
)

Edit = tuple[Any, ...]
Keys = tuple[bytes, ...]


def apply(connection: sqlite3.Connection, edit: Edit) -> tuple[int, int]:
    """Edit the rows; return the first and last seq whose place may be named for it."""
    kind, seq = edit[0], edit[1]
    if kind == "change":
        column = edit[2]
        query = f"SELECT {column} FROM events WHERE seq = ?"  # noqa: S608 - of COLUMNS
        (value,) = connection.execute(query, (seq,)).fetchone()
        changed: object = [f"{value}x", "", "x"][edit[3]]
        if column in STATES:
            changed = 1 if value is None else None
        statement = f"UPDATE events SET {column} = ? WHERE seq = ?"  # noqa: S608 - of COLUMNS
        connection.execute(statement, (changed, seq))
        return seq, seq + 1
    if kind == "delete":
        last = min(COUNT, seq + edit[2] - 1)
        connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (seq, last))
        return seq, last + 1
    if kind == "swap":
        other = edit[2]
        for before, after in ((seq, -1), (other, seq), (-1, other)):
            connection.execute("UPDATE events SET seq = ? WHERE seq = ?", (after, before))
        return min(seq, other), max(seq, other) + 1
    if kind == "insert":
        forged = an_event()
        connection.execute(
            "INSERT INTO events (seq, event_id, type, timestamp_ms, agent_id, session_id, user_id, "
            "data, digest, context, trace, salt, sealed, chain) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, *forged, forged.digest),
        )
        return COUNT + 1, seq
    connection.execute("UPDATE OR REPLACE events SET seq = ? WHERE seq = ?", (edit[2], seq))
    return min(seq, edit[2]), max(seq, edit[2]) + 1


@pytest.fixture(params=[None, KEY], ids=["plain", "keyed"])
def filled(config: MakeConfig, request: pytest.FixtureRequest) -> tuple[Path, Keys]:
    """An outbox with delivered, dead and pending events, and the keys to it."""
    settings = config(chain_key=request.param)
    fill(settings, COUNT)
    settle(settings, 6, dead=[3])
    keys = () if request.param is None else (request.param,)
    with copied(settings.outbox_path) as untouched:
        assert verified(untouched, keys).proven
    return settings.outbox_path, keys


@contextmanager
def copied(path: Path) -> Iterator[sqlite3.Connection]:
    """Lend a copy in memory, for quick edits."""
    with (
        closing(sqlite3.connect(path)) as original,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as copy,
    ):
        original.backup(copy)
        yield copy


def verified(copy: sqlite3.Connection, keys: Keys) -> IntegrityReport:
    engine = create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool)
    with engine.connect() as connection:
        return verify.verify(connection.execution_options(isolation_level="AUTOCOMMIT"), keys)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edit=st.one_of(changes, deletions, swaps, insertions, moves))
def test_every_edit_by_hand_is_found_at_its_place(filled: tuple[Path, Keys], edit: Edit) -> None:
    """Change, delete, insert, swap or move: a problem is named within the rows it touched."""
    path, keys = filled
    with copied(path) as copy:
        first, last = apply(copy, edit)
        report = verified(copy, keys)
    assert not report.ok
    named = [problem.seq for problem in report.problems if problem.seq is not None]
    if edit[0] == "change" and edit[2] in STATES:
        assert {problem.kind for problem in report.problems} == {"account"}
    else:
        assert any(first <= seq <= last for seq in named), report.problems


@pytest.mark.parametrize("seq", [1, 3, 12])
@pytest.mark.parametrize("column", STATES)
def test_every_change_of_a_state_is_found(filled: tuple[Path, Keys], seq: int, column: str) -> None:
    """Whether an event was delivered or refused is no part of its digest; the account knows it."""
    path, keys = filled
    with copied(path) as copy:
        apply(copy, ("change", seq, column, 0))
        assert {problem.kind for problem in verified(copy, keys).problems} == {"account"}


def test_rows_cut_off_at_the_end_leave_a_trace(config: MakeConfig) -> None:
    """Though no row follows: the account knows how far the outbox had come, and goes on there."""
    fill(config(), 8)
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq > 5")
    outbox = Outbox(config())
    with closing(outbox):
        with outbox.snapshot() as reader:
            report = verify.verify(reader)
        gap = report.problems[0]
        assert (gap.seq, gap.kind) == (6, "gap")
        assert gap.message.startswith("events 6 to 8 are missing")
        outbox.append(an_event())
        with outbox.snapshot() as reader:
            report = verify.verify(reader)
            newest = reader.exec_driver_sql("SELECT max(seq) FROM events").scalar_one()
    assert newest == 9, "no seq is given twice"
    assert (report.problems[0].seq, report.problems[0].kind) == (6, "gap")


def test_all_rows_deleted(config: MakeConfig) -> None:
    """Nothing is left but the account, which tells."""
    fill(config(), 3)
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events")
    outbox = Outbox(config())
    with closing(outbox), outbox.snapshot() as reader:
        report = verify.verify(reader)
    assert [(problem.seq, problem.kind) for problem in report.problems] == [
        (1, "gap"),
        (None, "account"),
    ]


def test_an_outbox_from_before_the_anchor_goes_on(config: MakeConfig) -> None:
    """Older files do not have the entry; it is made with the next event, and nothing is a gap."""
    fill(config(), 3)
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM account WHERE entry = 'stored'")
    fill(config(), 2)
    with closing(sqlite3.connect(config().outbox_path)) as connection:
        entries = dict(connection.execute("SELECT entry, events FROM account").fetchall())
    assert entries == {"stored": 5}
    outbox = Outbox(config())
    with closing(outbox), outbox.snapshot() as reader:
        assert verify.verify(reader).proven
