"""Everything that somebody with SQL and without keys can do: found, or in the table with a reason.

The tables are in tracker/audit/README.md, and these tests are what they say: each row is tried with
many values, alone and with each other one, and a row without a forgery, or a forgery without a row,
fails.
"""

from __future__ import annotations

import io
import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.faults import forged, forged_copies
from tests.faults.forged import FORGERIES, Forgery, NotPossible, World
from tests.support.conversations import ROOT
from tests.support.pages import IS_CHECKOUT, Page
from tracker import APIConfig
from tracker.audit.check import check
from tracker.audit.export import export
from tracker.collector.store import Store
from tracker.events import make_event
from tracker.outbox.integrity import verify
from tracker.outbox.integrity.compare import Comparison
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.integrity.chain import Problem, Unproven

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not IS_CHECKOUT, reason="the tables are not in the wheel"),
]

PAGE = Page(ROOT / "tracker" / "audit" / "README.md")
SEVERITY = {"no": 0, "not proven": 1, "found": 2}
FIRST = 0
"""The seed that a forgery is tried with first."""

GONE_ON = (
    "the newest events, not sent yet, cut off and the seq set back, and the application gone on"
)
CLONED = "two copies that both go on"

COMPOSED = {
    frozenset(pair): whole
    for *pair, whole in [
        (
            "events deleted",
            "a record of removed events added for events that are here",
            "pending events deleted, and recorded as removed and given up",
        ),
        (
            "a figure of the account changed",
            "a figure of the account changed",
            "a number of events moved from one figure of the account to another",
        ),
        (
            "pending events marked as delivered, with the account",
            "the newest events, sent ones too, deleted, and the account set back",
            "the newest events, not sent yet, deleted, and the newest seq set back",
        ),
        (
            "the same, and the outbox's creation set to later",
            "the newest events, sent ones too, deleted, and the account set back",
            "the newest events, not sent yet, deleted, and the newest seq set back",
        ),
        (
            "pending events marked as delivered, with the account",
            "delivered events marked as pending, with the account",
            "when an event was delivered or refused, and why, changed",
        ),
        (
            "the same, and the outbox's creation set to later",
            "delivered events marked as pending, with the account",
            "when an event was delivered or refused, and why, changed",
        ),
    ]
}
"""Pairs that amount to a third forgery, so that they are found no better than that one."""


class Verdicts(NamedTuple):
    """A row of the table of outboxes: what each of the four ways to look at one says."""

    verify: str
    key: str
    export: str
    collector: str


def table(number: int) -> dict[str, tuple[str, ...]]:
    """Return one of the tables: the verdicts of each row, without the reason."""
    lines = PAGE.section("What is found").splitlines()
    tables: list[dict[str, tuple[str, ...]]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("| ") or line.startswith("|--"):
            continue
        name, *verdicts, _why = (cell.strip() for cell in line.strip().strip("|").split(" | "))
        if not before.startswith("|"):
            tables.append({})  # its heading
        else:
            assert name not in tables[-1]
            tables[-1][name] = tuple(verdicts)
    return tables[number]


OUTBOXES, EXPORTS, COLLECTORS = (table(number) if IS_CHECKOUT else {} for number in range(3))


def verdict(problems: Sequence[Problem], unproven: Sequence[Unproven] = ()) -> str:
    if problems:
        return "found"
    return "not proven" if unproven else "no"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = forged.make(tmp_path_factory.mktemp("worlds") / "plain", None)
    yield world
    world.store.close()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = forged.make(tmp_path_factory.mktemp("worlds") / "keyed", forged.KEY)
    yield world
    world.store.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name for exports; each is removed again."""
    return tmp_path_factory.mktemp("exports") / "audit.jsonl"


@pytest.fixture(scope="module")
def look(plain: World, keyed: World, file: Path) -> Callable[..., Verdicts]:
    """Apply forgeries, each with its seed, to an outbox with a key and one without; say what shows.

    Raises NotPossible if one has nothing left to be done to.
    """

    def found(*steps: tuple[Forgery, int]) -> Verdicts:
        with forged.forged(plain, *steps) as connection:
            alone, compared = verify.verify(connection), compare(connection, plain.store)
        with forged.forged(keyed, *steps) as connection:
            report = verify.verify(connection, keyed.keys)
            exported = exported_from(connection, keyed, file)
        return Verdicts(
            verdict(alone.problems, alone.unproven),
            verdict(report.problems, report.unproven),
            exported,
            verdict([*alone.problems, *compared], alone.unproven),
        )

    return found


def compare(connection: Connection, store: Store) -> list[Problem]:
    """Compare as ``verify --against-collector`` does, by the id that the outbox says it has."""
    query = "SELECT outbox_id FROM identity"
    outbox_id = connection.exec_driver_sql(query).scalar_one()
    return list(Comparison(connection, forged.Collector(store, outbox_id)).problems())


def exported_from(connection: Connection, world: World, file: Path) -> str:
    """Let the application export what it has after a forgery, and check that with the key."""
    export(connection, file, key=world.key)
    try:
        report = check(io.BytesIO(file.read_bytes()), world.keys)
    finally:
        file.unlink()
    return verdict(report.problems, report.unproven)


# --- the tables -----------------------------------------------------------------------------------


def test_the_tables_name_every_forgery_and_no_other() -> None:
    """In the order in which they are tried, so that neither list can be ahead of the other."""
    assert list(OUTBOXES) == [*FORGERIES, GONE_ON, CLONED]
    assert list(EXPORTS) == list(forged_copies.OF_EXPORTS)
    assert list(COLLECTORS) == list(forged_copies.OF_COLLECTORS)
    for rows in (OUTBOXES, EXPORTS, COLLECTORS):
        assert {verdict for verdicts in rows.values() for verdict in verdicts} <= set(SEVERITY)


def test_nothing_is_found_where_nothing_was_forged(look: Callable[..., Verdicts]) -> None:
    """Whatever state its events are in, an outbox that nobody touched is sound and proven."""
    assert set(look()) == {"no"}


# --- outboxes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_found_as_the_table_says(
    look: Callable[..., Verdicts], name: str, full: bool
) -> None:
    """Whichever rows and values are chosen."""
    for seed in range(FIRST, FIRST + (200 if full else 5)):
        seen = look((FORGERIES[name], seed))
        assert seen == OUTBOXES[name], f"{name}, seed {seed}"


def pairs_are_found(look: Callable[..., Verdicts], examples: int) -> None:
    forgeries = st.sampled_from(list(FORGERIES.values()))
    seeds = st.integers(0, 2**32 - 1)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(one=forgeries, other=forgeries, seeds=st.tuples(seeds, seeds))
    def each(one: Forgery, other: Forgery, seeds: tuple[int, int]) -> None:
        try:
            seen = look((one, seeds[0]), (other, seeds[1]))
        except NotPossible:
            assume(False)
        names = [one.name, other.name]
        if composed := COMPOSED.get(frozenset(names)):
            names.append(composed)
        for way, found in zip(Verdicts._fields, seen, strict=True):
            rows = [Verdicts(*OUTBOXES[name]) for name in names]
            least = min(SEVERITY[getattr(row, way)] for row in rows)
            assert SEVERITY[found] >= least, f"{names}: {way} says {found}"

    each()


def test_no_forgery_hides_another(look: Callable[..., Verdicts], full: bool) -> None:
    """Of two that are found, not even both together are hidden."""
    pairs_are_found(look, 5_000 if full else 60)


@pytest.mark.parametrize("key", [None, forged.KEY], ids=["verify", "key"])
def test_what_is_written_after_a_tail_was_cut_off(tmp_path: Path, key: bytes | None) -> None:
    """The tracker cannot know that events were there, and vouches for what is there now."""
    world = forged.make(tmp_path / "world", key)
    cut = FORGERIES["the newest events, not sent yet, deleted, and the newest seq set back"]
    with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
        attacker = forged.Attacker(connection, random.Random(FIRST), world.older)  # noqa: S311 - chance, not secrecy
        cut.apply(attacker)
    with closing(Outbox(APIConfig(api_key="-", client_id=forged.CLIENT,
                                  outbox_path=world.path, chain_key=key))) as outbox:  # fmt: skip
        outbox.append(make_event("test.noted", {}))
    with forged.forged(world) as connection:
        report = verify.verify(connection, world.keys)
        compared = compare(connection, world.store)
        exported = exported_from(connection, world, tmp_path / "audit.jsonl")
    row = Verdicts(*OUTBOXES[GONE_ON])
    assert verdict(report.problems, report.unproven) == (row.verify if key is None else row.key)
    assert (exported, verdict([*report.problems, *compared])) == (row.export, row.collector)
    world.store.close()


@pytest.mark.parametrize("key", [None, forged.KEY], ids=["verify", "key"])
def test_two_copies_that_both_send(tmp_path: Path, key: bytes | None) -> None:
    """Each is sound by itself, and the collector has what neither of them can explain."""
    world = forged.make(tmp_path / "world", key)
    shutil.copy(world.path, tmp_path / "copy.sqlite3")
    for path in (world.path, tmp_path / "copy.sqlite3"):
        forged.send_more(path, key, world.store)
    row = Verdicts(*OUTBOXES[CLONED])
    with forged.forged(world) as connection:
        report = verify.verify(connection, world.keys)
        compared = compare(connection, world.store)
        exported = exported_from(connection, world, tmp_path / "audit.jsonl")
        (found,) = [world.store.outbox_report(forged.CLIENT, forged.outbox_id(connection))]
    assert verdict(report.problems, report.unproven) == (row.verify if key is None else row.key)
    assert (exported, verdict(compared)) == (row.export, row.collector)
    assert found.chain == "forked"
    world.store.close()


# --- exports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", forged_copies.OF_EXPORTS)
def test_each_forgery_of_an_export_is_found_as_the_table_says(
    plain: World, keyed: World, file: Path, name: str, full: bool
) -> None:
    """Of one that was sealed without a key, and of one with it."""
    lines = {}
    for world in (plain, keyed):
        with forged.forged(world) as connection:
            export(connection, file, key=world.key)
        lines[world.key] = file.read_bytes().splitlines(keepends=True)
        file.unlink()
        whole = check(io.BytesIO(b"".join(lines[world.key])), world.keys)
        assert whole.proven
    for seed in range(200 if full else 10):
        seen = []
        for world in (plain, keyed):
            chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
            changed = forged_copies.OF_EXPORTS[name](list(lines[world.key]), chance)
            report = check(io.BytesIO(b"".join(changed)), world.keys)
            seen.append(verdict(report.problems, report.unproven))
        assert tuple(seen) == EXPORTS[name], f"{name}, seed {seed}"


# --- collectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", forged_copies.OF_COLLECTORS)
def test_each_forgery_at_the_collector_is_found_as_the_table_says(
    plain: World, tmp_path: Path, name: str, full: bool
) -> None:
    """By its own report, and by comparing an outbox with it."""
    with forged.forged(plain) as connection:
        outbox_id = forged.outbox_id(connection)
    before = plain.store.outbox_report(forged.CLIENT, outbox_id)
    for seed in range(50 if full else 3):
        path = tmp_path / f"{seed}.sqlite3"
        with (
            closing(sqlite3.connect(plain.path.with_name("collector.sqlite3"))) as original,
            closing(sqlite3.connect(path)) as copy,
        ):
            original.backup(copy)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
            forged_copies.OF_COLLECTORS[name](database, chance)
        with closing(Store(path)) as store, forged.forged(plain) as connection:
            after = store.outbox_report(forged.CLIENT, outbox_id, whole=True)
            compared = compare(connection, store)
        shown = (after.chain, after.missing, after.reused_seqs) != (
            before.chain, before.missing, before.reused_seqs
        )  # fmt: skip
        seen = ("found" if shown else "no", verdict(compared))
        assert seen == COLLECTORS[name], f"{name}, seed {seed}"
