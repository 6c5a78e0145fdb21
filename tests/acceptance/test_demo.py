"""`tracker-sync demo`: the command as users run it, and the honesty of its verdict."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.cli import process
from tests.support.collector import EventChain
from tests.support.uploads import wait_until
from tracker.collector import integrity as collector_integrity
from tracker.demo import checks
from tracker.demo.checks import Acknowledged, Check, Evidence, StoredEvent
from tracker.demo.processes import Children, DemoError
from tracker.outbox.integrity.chain import Problem
from tracker.outbox.integrity.verify import IntegrityReport
from tracker.outbox.store.ledger import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from tracker.demo.command import demo; demo()"]

# The collector loses one event after it said that it has it.
_LOSING = """
from tracker.demo import command, processes
whole = processes.Collector.events
processes.Collector.events = lambda self: whole(self)[:-1]
command.demo()
"""
LOSING = [sys.executable, "-c", _LOSING]

# As if fastapi were not installed.
_BARE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "fastapi" else found(name, *more)
from tracker.demo.command import demo
demo()
"""
BARE = [sys.executable, "-c", _BARE]

# What a user may have set up for real work. All of it would stop the demo if it mattered.
HOSTILE = {
    "SDK_API_KEY": "not the demo's",
    "SDK_BASE_URL": "https://collector.invalid",
    "SDK_CLIENT_ID": "somebody",
    "SDK_DISABLED": "1",
    "SDK_OUTBOX_PATH": "/nonexistent/outbox.sqlite3",
    "SDK_CONFIG_FILE": "/nonexistent/tracker.toml",
    "SDK_MAX_EVENT_BYTES": "many",
    "COLLECTOR_DATABASE_URL": "postgresql://nowhere.invalid/db",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
    "XDG_DATA_HOME": "/nonexistent",
}


class Run(NamedTuple):
    """A finished demo, and the folder that was its TMPDIR."""

    code: int
    out: str
    err: str
    folder: Path


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **variables}


def run(command: list[str], folder: Path, **variables: str) -> Run:
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Run(ended.returncode, ended.stdout, ended.stderr, folder)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Three whole demos at the same time, as one takes seconds."""
    with ThreadPoolExecutor() as pool:
        runs = {
            "plain": pool.submit(run, COMMAND, tmp_path_factory.mktemp("plain"), **HOSTILE),
            "kept": pool.submit(run, [*COMMAND, "--keep"], tmp_path_factory.mktemp("kept")),
            "losing": pool.submit(run, LOSING, tmp_path_factory.mktemp("losing")),
        }
    return {name: future.result() for name, future in runs.items()}


@pytest.mark.slow
def test_every_check_holds_and_nothing_is_left(demos: dict[str, Run]) -> None:
    """Exit code 0, the whole story and eight ticks, whatever the user's environment says."""
    done = demos["plain"]
    assert (done.code, done.err) == (0, ""), done
    assert re.search(r"SIGKILL in the middle of conversation 41", done.out)
    assert re.search(r"\d+ events were acknowledged with the collector down", done.out)
    assert done.out.count("✓") == 8
    assert "✗" not in done.out
    assert "All 8 checks held." in done.out
    assert done.out.splitlines()[-1] == "  tracker-sync demo --keep"
    assert "trk_" not in done.out  # no API key is ever shown
    assert list(done.folder.iterdir()) == []


@pytest.mark.slow
def test_kept_data_can_be_read_with_the_printed_line(demos: dict[str, Run]) -> None:
    """`--keep` leaves the files where it says, and each printed command works there."""
    done = demos["kept"]
    assert done.code == 0, done
    lines = [line for line in done.out.splitlines() if line.startswith("  tracker-sync ")]
    assert len(lines) == 3
    for line in lines:
        _, *arguments = shlex.split(line)
        assert Path(arguments[1]).is_relative_to(done.folder.resolve())
        code, out, err = process(*arguments)
        assert (code, err) == (0, ""), line
        assert len(out.splitlines()) > 1 or out.endswith("sound\n"), line
    shown = re.findall(r"^  \S.*\s(/\S+)$", done.out, re.MULTILINE)
    assert len(shown) == 3
    assert all(Path(path).is_file() for path in shown)


@pytest.mark.slow
def test_the_dashboard_opens_on_what_was_logged(tmp_path: Path) -> None:
    """`--dashboard` keeps the data, opens a browser on it, and ends with Ctrl-C."""
    opener, opened = tmp_path / "bin" / "xdg-open", tmp_path / "opened"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" >{shlex.quote(str(opened))}\n')
    opener.chmod(0o755)
    variables = environment(tmp_path, PATH=f"{opener.parent}{os.pathsep}{os.environ['PATH']}")
    with subprocess.Popen(
        [*COMMAND, "--dashboard"], env=variables, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        links = (line.strip() for line in process.stdout if line.startswith("http://127.0.0.1:"))
        link = next(links)
        jar = urllib.request.HTTPCookieProcessor()
        with urllib.request.build_opener(jar).open(link) as answer:
            assert answer.status == 200
        wait_until(opened.exists, "the browser is opened")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert opened.read_text() == link
    assert len(list(tmp_path.glob("tracker-demo-*/outbox.sqlite3"))) == 1


@pytest.mark.slow
def test_a_loss_fails_the_demo(demos: dict[str, Run]) -> None:
    """An event that the collector has lost is found, named as a failure, and exits with 1."""
    done = demos["losing"]
    assert done.code == 1
    assert re.search(r"✗ every acknowledged event arrived exactly once \(.* missing: ", done.out)
    assert "checks FAILED" in done.out
    assert list(done.folder.iterdir()) == []


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path) -> None:
    """Exit code 2 and one line."""
    done = run(BARE, tmp_path)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert "pip install 'agent-tracking-sdk[collector]'" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the agent, and remove the folder."""
    with subprocess.Popen(
        COMMAND, env=environment(tmp_path), stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        agent = None
        while agent is None:
            line = process.stdout.readline()
            assert line, "the demo ended early"
            agent = re.search(r"agent \(pid (\d+)\)", line)
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(30) != 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(agent[1]), 0)


def test_a_process_that_dies_is_quoted(tmp_path: Path) -> None:
    """When the agent ends by itself, the error has its exit code and stderr."""
    with Children(tmp_path) as children:
        agent = children.start("agent", "tracker.demo.agent")
        with pytest.raises(
            DemoError, match=r"agent ended unexpectedly with exit code 2(.|\n)*--outb"
        ):
            agent.line()


def test_children_end_with_their_block(tmp_path: Path) -> None:
    """A process that would run for ever does not outlive the block."""
    with Children(tmp_path) as children:
        server = children.start("http server", "http.server", "0", "--bind", "127.0.0.1")
        assert server.running
    assert not server.running


def test_a_torn_line_of_the_record_is_cut_off(tmp_path: Path) -> None:
    """SIGKILL may tear the last line; it counts as not acknowledged, and the next one is whole."""
    record = tmp_path / "acknowledged.jsonl"
    whole = b'{"call": "log_message", "returned": "a"}\n'
    for kept in (b"", whole):
        record.write_bytes(kept + b'{"call": "log_m')
        assert len(checks.read_record(record)) == bool(kept)
        assert record.read_bytes() == kept


def sound_evidence() -> Evidence:
    """A conversation of five events, all of which arrived."""
    chain = EventChain()
    types = ["conversation.started", *["message.logged"] * 3, "conversation.ended"]
    received = [chain.event({"n": n}, type=type_) for n, type_ in enumerate(types)]
    ids = [event["event_id"] for event in received]
    return Evidence(
        acknowledged=[
            Acknowledged("start_conversation", "session-1"),
            *(Acknowledged("log_message", event_id) for event_id in ids[1:]),
        ],
        received=received,
        reports=[report(chain.outbox_id, received)],
        stored=[
            StoredEvent(e["seq"], e["event_id"], e["type"], "session-1", e["digest"], "delivered")
            for e in received
        ],
        outbox_id=chain.outbox_id,
        account=Account(accepted=5, delivered=5),
        integrity=IntegrityReport(5, 1, 5, 0, ()),
    )


def report(outbox_id: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make the collector's own report on these events."""
    rows = [(e["seq"], e["digest"], e["chain"]) for e in events]
    return {
        "outbox_id": outbox_id,
        **dataclasses.asdict(collector_integrity.report(sorted(rows))),
    }


def rejudged(evidence: Evidence, received: Sequence[Mapping[str, Any]]) -> Evidence:
    """Replace what arrived, and the collector's report with it."""
    made = report(evidence.outbox_id, received)
    return dataclasses.replace(evidence, received=received, reports=[made])


def test_sound_evidence_passes() -> None:
    """Without damage, every check holds."""
    done = checks.check_all(sound_evidence())
    assert len(done) == 7
    assert [check for check in done if not check.held] == []


def one_missing(good: Evidence) -> Evidence:
    return rejudged(good, [e for e in good.received if e["seq"] != 3])


def last_missing(good: Evidence) -> Evidence:
    return rejudged(good, good.received[:-1])


def session_start_missing(good: Evidence) -> Evidence:
    return rejudged(good, good.received[1:])


def one_twice(good: Evidence) -> Evidence:
    return rejudged(good, [*good.received, good.received[2]])


def arrived_in_other_order(good: Evidence) -> Evidence:
    a, b, *others = good.received
    return dataclasses.replace(good, received=[b, a, *others])


def called_in_other_order(good: Evidence) -> Evidence:
    a, b, c, *others = good.acknowledged
    return dataclasses.replace(good, acknowledged=[a, c, b, *others])


def contents_changed(good: Evidence) -> Evidence:
    first, *others = good.received
    return dataclasses.replace(good, received=[{**first, "data": {"n": 99}}, *others])


def digest_changed(good: Evidence) -> Evidence:
    first, *others = good.received
    return dataclasses.replace(good, received=[{**first, "digest": "0" * 64}, *others])


def chain_broken(good: Evidence) -> Evidence:
    events = [dict(event) for event in good.received]
    events[2]["chain"] = "f" * 64
    return rejudged(good, events)


def made_up_events(good: Evidence) -> Evidence:
    return dataclasses.replace(good, acknowledged=good.acknowledged[:2])


def nothing_acknowledged(good: Evidence) -> Evidence:
    return dataclasses.replace(good, acknowledged=[])


def two_outboxes(good: Evidence) -> Evidence:
    other = {**good.reports[0], "outbox_id": "another"}
    return dataclasses.replace(good, reports=[*good.reports, other])


def outbox_damaged(good: Evidence) -> Evidence:
    problem = Problem(2, "digest", "event 2 is not what was stored")
    return dataclasses.replace(good, integrity=IntegrityReport(5, 1, 5, 0, (problem,)))


def outbox_cut(good: Evidence) -> Evidence:
    return dataclasses.replace(good, integrity=IntegrityReport(4, 2, 5, 1, ()))


def one_pending(good: Evidence) -> Evidence:
    *others, last = good.stored
    return dataclasses.replace(
        good,
        stored=[*others, last._replace(state="pending")],
        account=Account(accepted=5, delivered=4, pending=1),
    )


def wrongly_booked(good: Evidence) -> Evidence:
    *others, last = good.stored
    return dataclasses.replace(good, stored=[*others, last._replace(state="pending")])


def refused(good: Evidence) -> Evidence:
    *others, last = good.stored
    return dataclasses.replace(
        good,
        stored=[*others, last._replace(state="dead")],
        account=Account(accepted=5, delivered=4, dead=1),
    )


def discarded(good: Evidence) -> Evidence:
    return dataclasses.replace(
        good, account=Account(accepted=6, delivered=5, discarded={"memory_buffer": 1})
    )


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        (one_missing, {"once", "contents", "reports"}),
        (last_missing, {"once", "contents", "reports"}),
        (session_start_missing, {"once", "contents", "reports"}),
        (one_twice, {"once", "order", "reports"}),
        (arrived_in_other_order, {"order"}),
        (called_in_other_order, {"order"}),
        (contents_changed, {"contents"}),
        (digest_changed, {"contents"}),
        (chain_broken, {"reports"}),
        (made_up_events, {"once"}),
        (nothing_acknowledged, {"once", "order"}),
        (two_outboxes, {"reports"}),
        (outbox_damaged, {"sound"}),
        (outbox_cut, {"sound"}),
        (one_pending, {"is pending"}),
        (wrongly_booked, {"account"}),
        (refused, {"account"}),
        (discarded, {"account"}),
    ],
)
def test_damage_is_found(damage: Callable[[Evidence], Evidence], failing: set[str]) -> None:
    """Each kind of damage fails the checks that speak of it, and no other."""
    failed = [check for check in checks.check_all(damage(sound_evidence())) if not check.held]
    words = {word for word in WORDS for check in failed if word in check.claim}
    assert words == failing
    assert len(failed) == len(failing)


WORDS = ("once", "order", "contents", "reports", "sound", "is pending", "account")
"""One word of each check's claim."""


def test_a_call_cut_off_by_the_kill_is_no_failure() -> None:
    """One event whose call never returned may be there: it was on disk before SIGKILL came."""
    good = sound_evidence()
    evidence = dataclasses.replace(good, acknowledged=good.acknowledged[:-1])
    once: Check = checks.check_all(evidence)[0]
    assert once.held
    assert once.figures == "4 of 4; and 1 whose call was killed"


def test_what_the_kill_lost_is_found() -> None:
    """An acknowledged event that the outbox lacks fails the check right after the kill."""
    good = sound_evidence()
    assert checks.kept(good.acknowledged, good.stored).held
    for stored in (good.stored[1:], good.stored[:-1], [*good.stored, good.stored[1]]):
        assert not checks.kept(good.acknowledged, stored).held
    assert not checks.kept([], good.stored).held
