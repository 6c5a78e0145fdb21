"""A chain under a key: who can prove what, and what happens when the key is not there."""

from __future__ import annotations

import hashlib
import hmac
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json, fill
from tracker import AgentPerformanceTracker, ConfigurationError, canonical
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.schema import tables
from tracker.testing import RecordingDestination
from tracker.trackers.security import SecurityTracker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.outbox.integrity.verify import IntegrityReport

KEY = "correct horse battery staple"
FORMER = b"\x00\xff" * 16


def verified(config: MakeConfig, *keys: str | bytes) -> IntegrityReport:
    """Verify as somebody who knows these keys."""
    outbox = Outbox(config(), check_owner=False)
    known = [canonical.key_bytes(key) or b"" for key in keys]
    with closing(outbox), outbox.snapshot() as connection:
        return verify.verify(connection, known)


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rewrite(path: Path) -> None:
    """Change an event and make digests and chain anew, as anybody can who has no key."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute('UPDATE events SET data = \'{"content":"forged"}\' WHERE seq = 2')
        chain = canonical.GENESIS
        rows = connection.execute(
            f"SELECT seq, {tables.EVENT} FROM events ORDER BY seq"  # noqa: S608 - constant
        ).fetchall()
        for seq, *columns in rows:
            digest = canonical.digest_of(*columns)
            chain = canonical.chain(chain, digest)
            connection.execute(
                "UPDATE events SET digest = ?, chain = ? WHERE seq = ?", (digest, chain, seq)
            )


def places(report: IntegrityReport) -> list[tuple[int | None, str]]:
    return [(problem.seq, problem.kind) for problem in report.problems]


def doubts(report: IntegrityReport) -> list[tuple[int, int]]:
    return [(events.first_seq, events.last_seq) for events in report.unproven]


def test_the_chain_is_what_the_protocol_says(config: MakeConfig) -> None:
    """HMAC-SHA256 over previous chain and digest as ASCII, from 64 zeros on; also on the wire."""
    destination = RecordingDestination()
    with SecurityTracker(config(chain_key=KEY), destination=lambda: destination) as security:
        for _ in range(3):
            security.report_event("k", "low")
        assert security.verify_integrity().proven
        security.flush()
    chain = "0" * 64
    for event in destination.events:
        chain = hmac.new(
            KEY.encode(), (chain + event["digest"]).encode("ascii"), hashlib.sha256
        ).hexdigest()
        assert event["chain"] == chain
    assert len(destination.events) == 3


def test_without_the_key_all_but_the_chain_is_checked(config: MakeConfig) -> None:
    """And it is said of which events; with another key as well."""
    fill(config(chain_key=KEY), 5)
    assert verified(config, KEY).proven
    for report in (verified(config), verified(config, FORMER)):
        assert (report.ok, report.proven, doubts(report)) == (True, False, [(1, 5)])
    edit(config().outbox_path, "UPDATE events SET data = '{}' WHERE seq = 2")
    edit(config().outbox_path, "DELETE FROM events WHERE seq = 4")
    report = verified(config)
    assert places(report) == [(2, "digest"), (4, "gap"), (None, "account")]
    assert doubts(report) == [(1, 3), (5, 5)]


def test_who_has_no_key_cannot_rebuild_the_chain(config: MakeConfig) -> None:
    """Rewritten as a whole, a plain chain is sound; one that had a key is not, whoever looks."""
    fill(config(), 5)
    rewrite(config().outbox_path)
    assert verified(config).proven, "this is what the key is for"
    config().outbox_path.unlink()
    fill(config(chain_key=KEY), 5)
    rewrite(config().outbox_path)
    assert places(verified(config, KEY)) == [(1, "chain")]
    assert places(verified(config)) == [(1, "chain")]


def test_an_outbox_begun_without_a_key(config: MakeConfig) -> None:
    """What came before the key is not proven, what comes after is; nothing is lost."""
    fill(config(), 3)
    fill(config(chain_key=KEY), 2)
    report = verified(config, KEY)
    assert (report.events, report.ok, doubts(report)) == (5, True, [(1, 3)])
    assert doubts(verified(config)) == [(4, 5)]
    edit(config().outbox_path, "UPDATE events SET chain = digest WHERE seq = 5")
    assert places(verified(config, KEY)) == [(5, "chain")]


def test_going_on_without_the_key_is_taken_and_told(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The events are stored, the log says it, and `verify` names them: anybody can make such."""
    fill(config(chain_key=KEY), 3)
    with caplog.at_level(logging.WARNING, "tracker"):
        fill(config(), 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "SDK_CHAIN_KEY" in caplog.text
    report = verified(config, KEY)
    assert (report.events, places(report)) == (5, [(4, "chain")])
    assert report.problems[0].message == ("events 4 to 5 were chained without the key in use")
    fill(config(chain_key=KEY), 1)
    assert places(verified(config, KEY)) == [(4, "chain")], "and what follows is proven again"


def test_the_key_can_be_changed(config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """The chain goes on under the new key; to check the older part one needs the former."""
    fill(config(chain_key=FORMER), 3)
    with caplog.at_level(logging.WARNING, "tracker"):
        fill(config(chain_key=KEY), 3)
    assert "keep the former one" in caplog.text
    assert verified(config, KEY, FORMER).proven
    assert places(verified(config, KEY)) == [(1, "chain")]
    report = verified(config, FORMER)
    assert (report.ok, doubts(report)) == (True, [(4, 6)])
    edit(config().outbox_path, "UPDATE events SET chain = digest WHERE seq = 2")
    assert places(verified(config, KEY, FORMER)) == [(2, "chain")]


def test_one_process_has_one_key(config: MakeConfig) -> None:
    """A second tracker with another is refused, and neither key is shown."""
    with (
        AgentPerformanceTracker(config(chain_key=KEY)),
        pytest.raises(ConfigurationError, match="chain_key set otherwise") as caught,
    ):
        AgentPerformanceTracker(config(chain_key=FORMER))
    assert KEY not in str(caught.value)


def test_the_key_is_nowhere_on_disk_nor_in_the_log(
    config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not while the outbox is open, nor after."""
    with caplog.at_level(logging.DEBUG):
        outbox = Outbox(config(chain_key=KEY))
        fill(config(), 3)
        with closing(outbox):
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert any(path.name.endswith("-wal") for path in files)
            assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in caplog.text


def test_the_command_says_what_it_could_not_check(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 without the key; 0 with it, from the environment or from a file."""
    fill(config(chain_key=FORMER), 2)
    fill(config(chain_key=KEY), 2)
    path = config().outbox_path
    result = call("--outbox", path, "verify")
    assert result.exit_code == 3
    assert "seq 1 to 4: not proven: chained under a key, and none is given" in result.stdout
    assert "\nsound as far as it could be checked" in result.stdout
    assert call_json("--outbox", path, "verify")["proven"] is False
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    assert call("--outbox", path, "verify").exit_code == 1
    (tmp_path / "former.key").write_bytes(FORMER)
    result = call("--outbox", path, "verify", "--chain-key-file", tmp_path / "former.key")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")
    monkeypatch.delenv("SDK_CHAIN_KEY")
    (tmp_path / "key").write_text(f"{KEY}\n")
    files = ("--chain-key-file", tmp_path / "key", "--chain-key-file", tmp_path / "former.key")
    assert call("--outbox", path, "verify", *files).exit_code == 0


def test_a_wrong_key_file_is_refused(config: MakeConfig, tmp_path: Path) -> None:
    """One that is not there or too short, in one line, without what it holds."""
    fill(config(), 1)
    (tmp_path / "short").write_text("tooshort")
    command = ("--outbox", config().outbox_path, "verify", "--chain-key-file")
    result = call(*command, tmp_path / "no")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    result = call(*command, tmp_path / "short")
    assert result.exit_code == 2
    assert "has 8 bytes; give 16 or more" in result.stderr
    assert "tooshort" not in result.stderr


def test_doctor_knows_whether_the_key_is_the_right_one(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning where the chain was made under another one."""

    def status() -> str:
        checks = call_json("--outbox", config().outbox_path, "doctor")["checks"]
        (found,) = [check["status"] for check in checks if check["name"] == "chain key"]
        return str(found)

    fill(config(), 1)
    assert status() == "ok"
    fill(config(chain_key=KEY), 1)
    assert status() == "warning"
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    assert status() == "ok"
    monkeypatch.setenv("SDK_CHAIN_KEY", "x" * 16)
    assert status() == "warning"
