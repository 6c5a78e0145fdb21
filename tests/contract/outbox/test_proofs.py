"""Removals and the newest seq, proven under the chain key: who else writes them is found out."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.audit.test_export import export
from tests.contract.outbox.test_chain_key import doubts, edit, places, verified
from tests.support.cli import call, call_json, fill, settle
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig

KEY = "correct horse battery staple"
NEWER = "the one after this one"
RECORD = "INSERT INTO gaps (first_seq, last_seq, chain, proof) VALUES ({}, {}, {}, {})"
CHAIN = "(SELECT chain FROM events WHERE seq = {})"
CUT = (
    RECORD.format(5, 7, CHAIN.format(7), "{}"),
    "DELETE FROM events WHERE seq BETWEEN 5 AND 7",
)
"""The statements that cut three delivered events out and record it as the tracker does."""


@pytest.fixture
def keyed(config: MakeConfig) -> APIConfig:
    """Twelve events under a key: three are pruned, of which the fourth tells, ten delivered."""
    settings = config(chain_key=KEY)
    fill(settings, 3)
    settle(settings, 3)
    prune(settings)
    fill(settings, 8)
    settle(settings, 7)
    assert verified(config, KEY).proven
    return settings


def prune(settings: APIConfig) -> None:
    with closing(Outbox(settings)) as outbox:
        outbox.prune(retention_days=-1)


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("proof", "found"),
    [
        ("'" + "0" * 64 + "'", ([(5, "gap")], [])),
        ("x'00'", ([(5, "gap")], [])),
        ("(SELECT proof FROM gaps)", ([(5, "gap")], [])),
        ("NULL", ([], [(5, 7)])),
    ],
)
def test_what_somebody_without_the_key_removes_is_not_sound(
    config: MakeConfig, keyed: APIConfig, proof: str, found: Any
) -> None:
    """A proof that is made up, or another gap's, is a problem; none at all is not proven."""
    edit(keyed.outbox_path, *(statement.format(proof) for statement in CUT))
    report = verified(config, KEY)
    assert (places(report), doubts(report)) == found
    code = call("--outbox", keyed.outbox_path, "verify").exit_code
    assert code == 3, "and without the key nobody says that it is sound"


def test_the_message_says_who_removed_them(
    keyed: APIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command exits as for any other problem."""
    edit(keyed.outbox_path, *(statement.format("'x'") for statement in CUT))
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    result = call("--outbox", keyed.outbox_path, "verify")
    assert result.exit_code == 1
    assert "seq 5: gap: events 5 to 7 were removed by somebody without the key" in result.stdout


@pytest.mark.parametrize("first", [2, 4])
def test_pruning_vouches_for_no_removal_of_others(
    config: MakeConfig, keyed: APIConfig, first: int
) -> None:
    """Forged beside a right one or beside what is pruned next: it is not joined with either."""
    statements = [
        RECORD.format(4, 5, CHAIN.format(5), "'x'"),
        "DELETE FROM events WHERE seq IN (4, 5)",
    ]
    if first == 2:
        statements.append("UPDATE gaps SET proof = 'x' WHERE first_seq = 1")
    edit(keyed.outbox_path, *statements)
    prune(keyed)
    seen = places(verified(config, KEY))
    assert seen == ([(1, "gap"), (4, "gap")] if first == 2 else [(4, "gap")])
    assert len(rows(keyed.outbox_path, "SELECT * FROM gaps")) == 3


def test_removals_in_order_stay_one_row(config: MakeConfig, keyed: APIConfig) -> None:
    """What the tracker removed itself is joined, with one proof for all of it."""
    prune(keyed)
    ((first, last),) = rows(keyed.outbox_path, "SELECT first_seq, last_seq FROM gaps")
    assert (first, last) == (1, 10)
    assert verified(config, KEY).proven


def test_a_tail_cut_off_and_the_account_made_to_fit(config: MakeConfig, keyed: APIConfig) -> None:
    """The newest seq cannot be set back without the key, as long as nothing is logged after it."""
    edit(
        keyed.outbox_path,
        "DELETE FROM events WHERE seq > 9",
        "UPDATE account SET events = 9 WHERE entry = 'stored'",
        "UPDATE account SET events = 9 WHERE entry = 'delivered'",
        "UPDATE sync_state SET settled_through = 9",
    )
    assert places(verified(config, KEY)) == [(None, "account")]
    edit(keyed.outbox_path, "UPDATE account SET proof = NULL")
    report = verified(config, KEY)
    assert (places(report), doubts(report)) == ([], [(9, 9)])
    edit(keyed.outbox_path, "DELETE FROM account WHERE entry = 'stored'")
    assert doubts(verified(config, KEY)) == [(9, 9)]


def test_a_removal_without_the_key_is_not_proven(config: MakeConfig, keyed: APIConfig) -> None:
    """As by a command that was not given the key: no tampering, and nothing proves that."""
    with closing(Outbox(config())) as outbox:
        outbox.run(retention.free_delivered(0))
    report = verified(config, KEY)
    assert (places(report), doubts(report)) == ([], [(4, 10), (12, 12)])
    settle(keyed, 2)
    assert doubts(verified(config, KEY)) == [(4, 10)], "the newest seq is proven again"


def test_under_another_key(config: MakeConfig, keyed: APIConfig) -> None:
    """What a former key proves takes the former key, and no key is told that it was forged."""
    newer = config(chain_key=NEWER)
    fill(newer, 2)
    settle(newer, 3)
    prune(newer)
    assert verified(config, KEY, NEWER).proven
    report = verified(config, KEY)
    assert (places(report), doubts(report)) == ([], [(4, 13), (14, 15)])
    assert (1, "gap") in places(verified(config, NEWER)), "as of links: give the former key too"


def test_a_removal_of_events_that_are_here_is_told(config: MakeConfig) -> None:
    """With or without a key: nobody records such a thing but by hand."""
    fill(config(), 5)
    edit(config().outbox_path, RECORD.format(2, 3, CHAIN.format(3), "NULL"))
    assert places(verified(config)) == [(2, "gap")]


@pytest.mark.parametrize(
    ("first", "last", "named"),
    [(4, 3, [4]), (2, "'x'", [2]), (1, 4, [1]), (5, 9, [6, 5])],
)
def test_a_record_of_a_removal_that_makes_no_sense_is_told(
    config: MakeConfig, first: int, last: object, named: list[int]
) -> None:
    """It ends before it begins, or has no number, or overlaps what is here or another record."""
    fill(config(), 5)
    settle(config(), 5)
    edit(config().outbox_path, RECORD.format(first, last, CHAIN.format(5), "NULL"))
    report = verified(config)
    assert [seq for seq, kind in places(report) if kind == "gap"] == named


def test_records_that_overlap_end_the_check_no_more_than_others(config: MakeConfig) -> None:
    """Where one leads back to before another, all is said to be missing that is."""
    fill(config(), 6)
    edit(
        config().outbox_path,
        RECORD.format(2, 5, CHAIN.format(5), "NULL"),
        "DELETE FROM events WHERE seq IN (2, 4, 5)",
    )
    assert [kind for _, kind in places(verified(config)) if kind == "gap"]


def test_an_export_carries_the_proofs(
    config: MakeConfig, keyed: APIConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the key shows what was removed without it, also there."""
    edit(keyed.outbox_path, *(statement.format("'x'") for statement in CUT))
    edit(
        keyed.outbox_path,
        RECORD.format(9, 9, CHAIN.format(9), "NULL"),
        "DELETE FROM events WHERE seq = 9",
    )
    export(keyed, tmp_path / "audit.jsonl")
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    found = call_json("verify", "--export", tmp_path / "audit.jsonl")
    assert [(p["seq"], p["kind"]) for p in found["problems"]] == [(5, "gap")]
    assert [(d["first_seq"], d["last_seq"]) for d in found["unproven"]] == [(9, 9)]


def test_a_restored_outbox_is_as_proven_as_the_backup(
    config: MakeConfig,
    keyed: APIConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has another id; with the key the proofs are made again, but for one that does not hold."""
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    path = tmp_path / "of" / "outbox.sqlite3"
    for number, expected in enumerate(([], [(1, "gap")])):
        copy = tmp_path / f"{number}.backup"
        call("--outbox", keyed.outbox_path, "backup", copy)
        result = call("--outbox", path, "restore", copy)
        assert result.exit_code == 0, result.output
        found = call_json("--outbox", path, "verify")
        assert [(p["seq"], p["kind"]) for p in found["problems"]] == expected
        assert found["proven"] is not bool(expected)
        shutil.rmtree(path.parent)
        edit(keyed.outbox_path, "UPDATE gaps SET proof = 'x'")
    monkeypatch.delenv("SDK_CHAIN_KEY")
    assert call("--outbox", path, "restore", tmp_path / "1.backup").exit_code == 0
    report = verified(lambda: config(outbox_path=path), KEY)  # type: ignore[arg-type]  # one of its forms
    assert (places(report), doubts(report)) == ([], [(1, 3), (12, 12)])
    assert "SDK_CHAIN_KEY" in caplog.text
