"""``tracker-sync evidence``: bundles out of an outbox, checked by the one file alone."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import call, call_json
from tracker import Tracker
from tracker.evidence import keys, note, verifier
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorProcess


@pytest.fixture
def outbox_path(config: MakeConfig) -> Path:
    """Two conversations, of which one user's was erased."""
    with Tracker(config()) as tracker:
        for user in ("u", "v"):
            with tracker.performance.conversation("a", user_id=user, session_id=f"s-{user}") as c:
                c.user("<script>alert(1)</script>")
                c.agent("Hi there!", response_time_ms=5)
        tracker.compliance.erase_subject("v")
    return config().outbox_path


def checked(bundle: Path, *arguments: object) -> tuple[int, str]:
    """Run the verifier as somebody else does: one file, and nothing of ours to import."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", verifier.__file__, bundle, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def written(path: Path, to: Path, *arguments: str) -> Any:
    return call_json("--outbox", path, "evidence", *arguments, "--output", to)


def test_the_last_session_needs_no_id(outbox_path: Path, tmp_path: Path) -> None:
    """`--last` proves the conversation that started last."""
    last = written(outbox_path, tmp_path / "last.zip", "--last")
    named = written(outbox_path, tmp_path / "named.zip", "--session", "s-v")
    assert (last["events"], last["root"]) == (named["events"], named["root"])


def test_a_session_is_proved_to_somebody_else(outbox_path: Path, tmp_path: Path) -> None:
    """With the device's key it is proven; without one, or with another, it is not."""
    key = call("--outbox", outbox_path, "evidence", "--public-key").stdout.strip()
    made = written(outbox_path, tmp_path / "e.zip", "--session", "s-u")
    assert (made["events"], made["witnessed"], made["key"]) == (4, False, key)
    code, said = checked(tmp_path / "e.zip", "--key", key)
    assert (code, said.splitlines()[0].split(":")[0]) == (0, "PROVEN")
    assert checked(tmp_path / "e.zip")[0] == 3
    another = key[:-4] + ("AAA=" if key.endswith("=") else "AAAA")
    assert checked(tmp_path / "e.zip", "--key", another)[0] in (1, 2)
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        assert b"<script>alert" not in archive.read("report.html")


def test_what_was_erased_stays_proven(outbox_path: Path, tmp_path: Path) -> None:
    """The events that name it come with it."""
    made = written(outbox_path, tmp_path / "e.zip", "--session", "s-v")
    code, said = checked(tmp_path / "e.zip", "--key", made["key"])
    assert code == 0, said
    assert "4 events erased" in said


@pytest.mark.parametrize("withhold", ["user", "data"])
def test_a_part_is_withheld(outbox_path: Path, tmp_path: Path, withhold: str) -> None:
    """It can still be checked, and what is withheld is nowhere in the file."""
    made = written(outbox_path, tmp_path / "e.zip", "--seq", "1-4", "--withhold", withhold)
    assert checked(tmp_path / "e.zip", "--key", made["key"])[0] == 0
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        lines = [json.loads(line) for line in archive.read("events.jsonl").splitlines()]
    assert len(lines) == 4
    assert all(("user_id" if withhold == "user" else "data") not in line for line in lines)


def test_the_collectors_signature_is_in_it(
    config: MakeConfig, collector: CollectorProcess, tmp_path: Path
) -> None:
    """After an upload, by a collector that signs heads."""
    settings = config(base_url=collector.url, api_key=collector.api_key)
    with Tracker(settings) as tracker:
        tracker.track("thing.happened")
        outbox = Outbox(settings)
        assert outbox.checkpoint(0)
        outbox.close()
        assert tracker.flush(10).pending == 0
    made = written(settings.outbox_path, tmp_path / "e.zip", "--seq", "1")
    if not made["witnessed"]:
        pytest.skip("this collector signs no heads")
    assert checked(tmp_path / "e.zip", "--key", made["key"])[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give one of --session, --last, --seq, or --since"),
        (("--seq", "1", "--session", "s"), 2, "give one of --session, --last, --seq, or"),
        (("--last", "--session", "s"), 2, "give one of --session, --last, --seq, or"),
        (("--seq", "9-7"), 2, "is no seq and no range of seqs"),
        (("--seq", "x"), 2, "is no seq and no range of seqs"),
        (("--session", "nobody"), 1, "selects no stored event"),
        (("--seq", "999"), 1, "selects no stored event"),
        (("--until", "1971-01-01"), 1, "selects no stored event"),
    ],
)
def test_wrong_use_is_one_line(
    outbox_path: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """And no file."""
    result = call("--outbox", outbox_path, "evidence", *arguments, "--output", tmp_path / "e.zip")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "e.zip").exists()


def test_doctor_shows_the_key(outbox_path: Path) -> None:
    """So that it can be noted elsewhere; a file that holds none is named."""
    key = call("--outbox", outbox_path, "evidence", "--public-key").stdout.strip()

    def shown() -> tuple[str, str]:
        checks = call_json("--outbox", outbox_path, "doctor")["checks"]
        (found,) = [check for check in checks if check["name"] == "signing key"]
        return found["status"], found["message"]

    assert shown()[0] == "ok"
    assert key in shown()[1]
    outbox_path.with_name(outbox_path.name + ".signing-key").write_text("not a key")
    assert shown()[0] == "warning"


def test_doctor_tells_that_the_collector_knows_another_key(outbox_path: Path) -> None:
    """Whoever lost the key would not notice: events are delivered, and heads are not cosigned."""
    call("--outbox", outbox_path, "evidence", "--public-key")
    file = outbox_path.with_name(outbox_path.name + ".signing-key")

    def sign_at_the_collector() -> None:
        with closing(sqlite3.connect(outbox_path)) as connection, connection:
            (outbox_id,) = connection.execute("SELECT outbox_id FROM identity").fetchone()
            text = note.checkpoint_text(outbox_id, 1, bytes(32))
            signature = note.signature(text, note.origin(outbox_id), keys.load(file))
            seen = json.dumps([1, bytes(32).hex(), note.signed(text, [signature])])
            connection.execute(
                "INSERT INTO tree (id, frontier, witness) VALUES (1, zeroblob(8), ?) "
                "ON CONFLICT (id) DO UPDATE SET witness = excluded.witness",
                (seen,),
            )

    def shown() -> tuple[str, str]:
        checks = call_json("--outbox", outbox_path, "doctor")["checks"]
        (found,) = [check for check in checks if check["name"] == "signing key"]
        return found["status"], found["message"]

    sign_at_the_collector()
    assert shown()[0] == "ok"
    file.unlink()
    call("--outbox", outbox_path, "evidence", "--public-key")
    assert shown()[0] == "warning"
    assert "another key" in shown()[1]


def test_a_file_is_replaced_only_on_request(outbox_path: Path, tmp_path: Path) -> None:
    """An existing one stays as it is otherwise."""
    (tmp_path / "e.zip").write_text("mine")
    arguments = ("--outbox", outbox_path, "evidence", "--seq", "1", "--output", tmp_path / "e.zip")
    assert call(*arguments).exit_code == 1
    assert (tmp_path / "e.zip").read_text() == "mine"
    assert call(*arguments, "--force").exit_code == 0
    assert zipfile.is_zipfile(tmp_path / "e.zip")


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock", ".signing-key"])
@pytest.mark.parametrize(
    "command", [("evidence", "--seq", "1"), ("report", "--framework", "soc2"), ("export",)]
)
def test_no_output_replaces_a_file_of_the_outbox(
    outbox_path: Path, command: tuple[str, ...], suffix: str
) -> None:
    """The shell completes its name, and --force is in the history."""
    output = outbox_path.parent / ".." / outbox_path.parent.name / (outbox_path.name + suffix)
    result = call("--outbox", outbox_path, *command, "--output", output, "--force")
    assert result.exit_code == 2
    assert "is a file of the outbox" in result.stderr
    assert call("--outbox", outbox_path, "verify").exit_code == 0


@pytest.mark.parametrize(
    "command", [("evidence", "--seq", "1"), ("report", "--framework", "soc2"), ("export",)]
)
@pytest.mark.parametrize("name", ["pipe", ""])
def test_no_output_replaces_what_is_no_file(
    outbox_path: Path, tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    """As root, /dev/null would be gone for everybody; an unset variable names nothing."""
    os.mkfifo(tmp_path / "pipe")
    output = tmp_path / name if name else ""
    result = call("--outbox", outbox_path, *command, "--output", output, "--force")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_changed_event_proves_nothing(outbox_path: Path, tmp_path: Path) -> None:
    """Under the head that was signed before it was changed."""
    import sqlite3
    from contextlib import closing

    key = written(outbox_path, tmp_path / "before.zip", "--seq", "2")["key"]
    with closing(sqlite3.connect(outbox_path)) as connection, connection:
        connection.execute("UPDATE events SET timestamp_ms = timestamp_ms + 1 WHERE seq = 2")
    result = call("--outbox", outbox_path, "evidence", "--seq", "2", "--output", tmp_path / "e.zip")
    assert result.exit_code == 1
    assert "no evidence can be made" in result.stderr
    assert checked(tmp_path / "before.zip", "--key", key)[0] == 0
