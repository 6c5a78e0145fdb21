"""`tracker-sync report`."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

KEY = "0123456789abcdef"


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """A conversation of two days, under a chain key."""
    fill(
        config(chain_key=KEY),
        [
            an_event("conversation.started"),
            an_event(timestamp_ms=NOON_MS + 86_400_000),
            an_event("conversation.ended", timestamp_ms=NOON_MS + 86_400_000),
        ],
    )
    return config().outbox_path


def test_a_page_is_written_by_a_process_of_its_own(path: Path, tmp_path: Path) -> None:
    """With a line that says how much is recorded; only this user can read it."""
    output = tmp_path / "report.html"
    ended = process(
        *("--outbox", path, "report", "--framework", "eu-ai-act", "--output", output),
        environment={"SDK_CHAIN_KEY": KEY},
    )
    said = f"{output}: of 30 kinds of events, 6 are recorded; in the outbox, no problem was found\n"
    assert ended == (0, said, "")
    page = output.read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "<td>conversation.started, conversation.resumed; by agent<td>recorded<td>1<td>1" in page
    assert "<li>No problem was found." in page
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_json_is_what_the_page_says(path: Path, tmp_path: Path) -> None:
    """Without a file, or beside one."""
    arguments = ("--outbox", path, "report", "--framework", "iso-42001")
    printed = call_json(*arguments)
    assert printed["framework"] == "iso-42001"
    lines = {line["kind"]: line for line in printed["lines"]}
    assert lines["events"] == {
        "provision": "A.6.2.8",
        "asks": "Event logs are kept at least while the system is in use",
        "kind": "events",
        "events": "any event",
        "recorded": True,
        "count": 3,
        "erased": 0,
        "first_seq": 1,
        "last_seq": 3,
        "ranges": [[1, 3]],
        "more_ranges": 0,
        "values": {},
        "other_values": 0,
    }
    assert not lines["security"]["recorded"]
    assert printed["account"]["pending"] == 3
    both = call(*arguments, "--json", "-o", tmp_path / "report.html")
    assert json.loads(both.stdout)["lines"] == printed["lines"]
    assert (tmp_path / "report.html").exists()


def test_what_events_say_neither_runs_in_the_page_nor_reaches_the_terminal(
    config: MakeConfig, tmp_path: Path
) -> None:
    """Tags are text, and control characters are written out, in HTML and in JSON."""
    said = "<script>\x1b[2J</script>\r\u202e"
    fill(
        config(),
        [
            an_event("conversation.started", session_id=said, agent_id=said),
            an_event("compliance.audited", data={"action": "x", "actor": said}),
        ],
    )
    output = tmp_path / "report.html"
    code, stdout, stderr = process(
        *("--outbox", config().outbox_path, "report", "--framework", "eu-ai-act", "--json"),
        *("-o", output),
    )
    assert (code, stderr) == (0, "")
    assert stdout.replace("\n", " ").isprintable()
    actors = [line for line in json.loads(stdout)["lines"] if line["kind"] == "actors"]
    assert actors[0]["values"] == {said: 1}
    page = output.read_text()
    assert page.rstrip("\n").isprintable()
    assert "<script" not in page
    assert page.count("&lt;script&gt;\\x1b[2J&lt;/script&gt;\\r\\u202e") == 4


def test_a_period_and_a_former_key(path: Path, tmp_path: Path) -> None:
    """The same options as those of `list` and `verify`."""
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    found = call_json(
        *("--outbox", path, "report", "--framework", "soc2", "--chain-key-file", key),
        *("--since", "2026-11-02T00:00Z", "--until", "2026-11-03T00:00Z"),
    )
    assert (found["since_ms"], found["lines"][0]["ranges"]) == (1_793_577_600_000, [[2, 3]])
    assert found["integrity"]["proven"]


def test_a_file_that_exists_is_replaced_only_by_force(path: Path, tmp_path: Path) -> None:
    """And it keeps its mode."""
    output = tmp_path / "report.html"
    output.write_text("precious")
    output.chmod(0o640)
    arguments = ("--outbox", path, "report", "--framework", "soc2", "-o", output)
    refused = call(*arguments)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {output} exists; give another name, or --force to replace it\n",
    )
    assert output.read_text() == "precious"
    assert call(*arguments, "--force").exit_code == 0
    assert output.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--framework", "soc2"], 2, "give --output FILE for the page, or --json"),
        (["--output", "x.html"], 2, "--framework"),
        (["--framework", "gdpr", "--json"], 2, "'gdpr' is not one of"),
        (["--framework", "soc2", "--json", "--since", "1d", "--until", "2d"], 2, "is before"),
        (["--framework", "soc2", "-o", "/no/such/x.html"], 1, "No such file"),
    ],
)
def test_wrong_use_ends_with_a_line(path: Path, arguments: list[str], code: int, said: str) -> None:
    """And no file."""
    ended = call("--outbox", path, "report", *arguments)
    assert ended.exit_code == code
    assert said in ended.stderr


def test_without_an_outbox_there_is_nothing_to_report(tmp_path: Path) -> None:
    """Exit code 1: an empty report would say that nothing is recorded."""
    output = tmp_path / "report.html"
    ended = call("--outbox", tmp_path / "no.sqlite3", "report", "--framework", "soc2", "-o", output)
    assert ended.exit_code == 1
    assert "nothing was logged" in ended.stderr
    assert not output.exists()
