"""`tracker-sync` as users run it: real processes, a real collector, applications at work."""

from __future__ import annotations

import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT, an_event, call_json, fill, process, settle, start
from tests.support.server import SILENCE, ScriptedServer
from tracker.config import APIConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.collector import CollectorProcess

# An application that logs all the time, at a pace that lets its uploader keep up.
APPLICATION = """
import threading
from tracker import AgentPerformanceTracker, APIConfig
tracker = AgentPerformanceTracker(APIConfig(flush_interval=0))
session_id = tracker.start_conversation("agent-1")
number = 0
while True:
    print(tracker.log_user_message(session_id, f"message {number}"), flush=True)
    number += 1
    threading.Event().wait(0.02)
"""


@pytest.fixture
def local(tmp_path: Path) -> dict[str, str]:
    """The environment of an application without a server."""
    return {
        "SDK_API_KEY": "some-key",
        "SDK_CLIENT_ID": "test-client",
        "SDK_BASE_URL": "http://127.0.0.1:9",
        "SDK_OUTBOX_PATH": str(tmp_path / "outbox" / "events.sqlite3"),
    }


@pytest.fixture
def settings(local: dict[str, str], collector: CollectorProcess) -> dict[str, str]:
    """The environment of an application whose events go to the collector."""
    return {**local, "SDK_API_KEY": collector.api_key, "SDK_BASE_URL": collector.url}


def as_config(settings: dict[str, str]) -> APIConfig:
    return APIConfig(
        api_key=settings["SDK_API_KEY"],
        client_id=settings["SDK_CLIENT_ID"],
        base_url=settings["SDK_BASE_URL"],
        outbox_path=Path(settings["SDK_OUTBOX_PATH"]),
    )


def without_key(settings: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name != "SDK_API_KEY"}


@contextmanager
def application(settings: dict[str, str]) -> Iterator[list[str]]:
    """Run an application, which has logged before this goes on; yields what it acknowledged."""
    running = subprocess.Popen(
        [sys.executable, "-c", APPLICATION],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    acknowledged = [running.stdout.readline().strip()]

    def listen() -> None:
        assert running.stdout is not None
        acknowledged.extend(line.strip() for line in running.stdout if line.endswith("\n"))

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield acknowledged
    finally:
        running.kill()
        running.wait()
        listener.join()
        running.stdout.close()


def at_once(
    commands: Sequence[tuple[str, ...]], environment: dict[str, str]
) -> dict[tuple[str, ...], tuple[int, str, str]]:
    """Run commands in processes beside each other; return what `process` does, of each."""
    with ThreadPoolExecutor(4) as pool:
        ended = pool.map(lambda command: process(*command, environment=environment), commands)
        return dict(zip(commands, ended, strict=True))


def test_flush_delivers(collector: CollectorProcess, settings: dict[str, str]) -> None:
    """No argument, only the environment: exit code 0, and the collector has everything."""
    events = fill(as_config(settings), 1200)
    assert process(environment=settings) == (0, "1,201 events delivered, 0 pending, 0 dead\n", "")
    *arrived, checkpoint = collector.events()
    assert [event["event_id"] for event in arrived] == [e.event_id for e in events]
    assert checkpoint["type"] == "integrity.checkpoint"


@pytest.mark.slow
def test_flush_without_a_server(collector: CollectorProcess, settings: dict[str, str]) -> None:
    """Exit code 1 when time is up, everything still pending; later it all arrives."""
    collector.stop()
    fill(as_config(settings), 5)
    code, stdout, stderr = process("flush", "--timeout", "0.5", environment=settings)
    assert (code, stderr) == (1, "")
    assert stdout.startswith("0 events delivered, 5 pending, 0 dead\nlast error, ")
    assert "Connection refused" in stdout
    path = settings["SDK_OUTBOX_PATH"]
    assert call_json("--outbox", path, "status")["pending"] == 5
    collector.start()
    assert process("--outbox", path, "flush", environment=settings)[0] == 0
    assert len(collector.events()) == 5


@pytest.mark.slow
def test_without_a_key_one_can_look(local: dict[str, str]) -> None:
    """All that uploads nothing works; what uploads says what is missing and exits with 2."""
    config = as_config(local)
    fill(config, 3)
    settle(config, 2, dead=[2])
    looking = {
        ("status",): "pending       1, ",
        ("list",): "message.logged",
        ("show", "1"): "(matches)",
        ("verify",): "\nsound\n",
        ("dead", "list"): "event 2 is odd",
        ("path",): f"{config.outbox_path}\n",
    }
    ended = at_once([*looking, ("flush",), ("run",)], without_key(local))
    for command, said in looking.items():
        code, stdout, stderr = ended[command]
        assert (code, stderr) == (0, "")
        assert said in stdout
    for command in (("flush",), ("run",)):
        code, stdout, stderr = ended[command]
        assert (code, stdout) == (2, "")
        assert stderr.startswith("Error: no API key: set the environment variable SDK_API_KEY")


@pytest.mark.slow
def test_all_commands_beside_an_application(
    collector: CollectorProcess, settings: dict[str, str]
) -> None:
    """They neither fail nor disturb it: what it acknowledged arrives, in order, unbroken."""
    with application(settings) as acknowledged:
        commands = [
            *[("status",), ("list", "--limit", "0"), ("list", "--pending"), ("show", "1")],
            *[("dead", "list"), ("dead", "retry", "--all"), ("dead", "discard", "--all", "--yes")],
            *[("verify",), ("path",), ("migrate",), ("doctor",), ("flush",), ("prune",)],
        ]
        before = len(acknowledged)
        for command, (code, stdout, stderr) in at_once(commands, settings).items():
            assert (code, stderr) == (0, ""), (command, stdout)
        assert len(acknowledged) > before
        assert call_json("--outbox", settings["SDK_OUTBOX_PATH"], "status")["uploader_running"]
    assert process("flush", environment=settings)[0] == 0
    assert process("verify", environment=settings)[0] == 0
    events = collector.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert set(acknowledged) <= {event["event_id"] for event in events}
    assert collector.outboxes()[0]["chain"] == "intact"


@pytest.mark.slow
def test_run_uploads_until_sigterm(collector: CollectorProcess, settings: dict[str, str]) -> None:
    """Started before there is an outbox, it delivers what another process logs; exit code 0."""
    running = start("run", environment=settings)
    assert running.stderr is not None
    lines = [running.stderr.readline()]
    while "this process uploads" not in lines[-1]:
        assert running.poll() is None, lines
        lines.append(running.stderr.readline())
    with application(settings) as acknowledged:
        while len(collector.events()) < 10:
            assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    stdout, rest = running.communicate(timeout=20)
    assert (running.returncode, stdout) == (0, "")
    assert "stopped; 0 events pending" in rest
    assert "client test-client" in lines[0]
    assert settings["SDK_API_KEY"] not in "".join(lines) + rest
    assert set(acknowledged) <= {event["event_id"] for event in collector.events()}


@pytest.mark.slow
def test_run_uploads_from_all_outboxes(local: dict[str, str]) -> None:
    """Each to its own server; one that cannot be opened is named in the log and the exit code."""
    folder = Path(local["SDK_OUTBOX_PATH"]).parent
    with ScriptedServer() as one, ScriptedServer() as other:
        for name, server in (("events", one), ("second", other), ("third", one)):
            settings = {"SDK_BASE_URL": server.url, "SDK_CLIENT_ID": f"client-{name}"}
            path = folder / f"{name}.sqlite3"
            fill(as_config({**local, **settings, "SDK_OUTBOX_PATH": str(path)}))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0042'")
            connection.commit()
        running = start("run", "--all", environment=local)
        one.wait_for(requests=1, timeout=20)
        other.wait_for(requests=1, timeout=20)
        running.send_signal(signal.SIGTERM)
        _, log = running.communicate(timeout=20)
        assert running.returncode == 1
        assert [len(server.delivered) for server in (one, other)] == [3, 3]
        clients = {request.headers["x-client-id"] for request in [*one.requests, *other.requests]}
        assert clients == {"client-events", "client-second"}
    assert "third.sqlite3: " in log
    assert "events.sqlite3: stopped; 0 events pending in the outbox" in log
    assert log.count("Traceback") == 0


@pytest.mark.slow
def test_a_second_sigterm_ends_run_at_once(local: dict[str, str]) -> None:
    """While the first one waits for a server that keeps silent."""
    with ScriptedServer() as server:
        server.script(otherwise=SILENCE)
        local["SDK_BASE_URL"] = server.url
        fill(as_config(local))
        running = start("run", environment=local)
        assert running.stderr is not None
        server.wait_for(requests=1, timeout=20)
        running.send_signal(signal.SIGTERM)
        while "stopping" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
        assert running.returncode == -signal.SIGTERM
    assert call_json("--outbox", local["SDK_OUTBOX_PATH"], "status")["pending"] == 3


def test_verify_names_an_edited_row(local: dict[str, str]) -> None:
    """Exit code 1 and its seq; `show` agrees."""
    fill(as_config(local), 5)
    connection = sqlite3.connect(local["SDK_OUTBOX_PATH"])
    connection.execute("UPDATE events SET data = replace(data, 'user', 'USER') WHERE seq = 4")
    connection.commit()
    connection.close()
    code, stdout, stderr = process("verify", environment=without_key(local))
    assert (code, stderr) == (1, "")
    assert [line for line in stdout.splitlines() if line.startswith("seq ")] == [
        line for line in stdout.splitlines() if line.startswith("seq 4: digest: ")
    ]
    assert "seq 4: digest: " in stdout
    assert "DOES NOT MATCH" in process("show", 4, environment=without_key(local))[1]


@pytest.mark.slow
def test_a_dead_letter_can_be_sent_again(
    collector: CollectorProcess, settings: dict[str, str]
) -> None:
    """Refused once, retried when the cause is mended, delivered."""
    config = as_config(settings)
    fill(config, 3)
    settle(config, 1, dead=[1])
    assert process("dead", "retry", "1", environment=settings)[0] == 0
    code, stdout, _ = process("flush", environment=settings)
    assert (code, stdout) == (0, "3 events delivered, 0 pending, 0 dead\n")
    assert sorted(event["seq"] for event in collector.events()) == [1, 2, 3]


@pytest.mark.slow
def test_doctor_exits_with_1_when_the_key_or_the_server_is_wrong(
    collector: CollectorProcess, settings: dict[str, str]
) -> None:
    """All well: 0. A wrong key, or no server: 1, and which line it is."""
    fill(as_config(settings), 1)

    def problems(environment: dict[str, str]) -> list[str]:
        code, stdout, stderr = process("doctor", environment=environment)
        assert stderr == ""
        assert environment["SDK_API_KEY"] not in stdout
        found = re.findall(r"^(.*?) +problem ", stdout, re.MULTILINE)
        assert code == (1 if found else 0)
        return found

    assert problems(settings) == []
    assert problems({**settings, "SDK_API_KEY": "wrong-key-wrong-key"}) == ["key accepted"]
    collector.stop()
    assert problems(settings) == ["server"]


def on_a_terminal(settings: dict[str, str], *arguments: object, typed: str = "") -> tuple[int, str]:
    """Run the command on a terminal of its own; return exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    environment = {**settings, "TERM": "xterm", "COLUMNS": "80"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    running = start(*arguments, environment=environment, **streams)
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return running.wait(20), shown.decode()


@pytest.mark.slow
def test_a_progress_bar_on_a_terminal(
    collector: CollectorProcess, settings: dict[str, str]
) -> None:
    """It goes away when all is done; the summary stays."""
    fill(as_config(settings), 1500)
    code, shown = on_a_terminal(settings, "flush")
    assert code == 0
    assert "━" in shown
    assert "1,501 events delivered, 0 pending, 0 dead" in shown
    assert "━" not in shown[shown.index("events delivered") :]
    assert len(collector.events()) == 1501  # with the checkpoint that was due


@pytest.mark.slow
def test_a_table_on_a_terminal(local: dict[str, str]) -> None:
    """One line an event, cut to the terminal's width; seq, time, state and type are whole."""
    fill(as_config(local), 2)
    code, shown = on_a_terminal(local, "list")
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert (code, len(lines)) == (0, 3)
    assert re.match(r"1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  pending  message.logged  ", lines[1])
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.slow
def test_a_transcript_on_a_terminal(local: dict[str, str]) -> None:
    """In colour; long text is broken between words, and every line of it is set in."""
    said = "A passenger's second checked bag costs 50 dollars on 2024-05-27, as said. " * 3
    fill(as_config(local), [an_event(data={"role": "agent", "content": said})])
    code, shown = on_a_terminal(local, "conversation", "session-1")
    assert (code, "\x1b[36m" in shown) == (0, True)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    text = [line for line in lines if line.startswith("    ")]
    assert len(text) == 3
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(line.strip() for line in text) == said.strip()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["export", "--format", "csv"], ["tail", "--no-follow"]])
def test_what_is_printed_raw_does_not_steer_the_terminal(
    local: dict[str, str], arguments: list[str]
) -> None:
    """Control characters that JSON may hold as they are come out as escapes."""
    fill(as_config(local), [an_event(data={"role": "user", "content": "\x9b2J\u202e" * 50})])
    code, shown = on_a_terminal(local, *arguments)
    assert code == 0
    assert r"\x9b2J\u202e" in shown
    assert not set("\x9b\u202e") & set(shown)


@pytest.mark.slow
def test_parquet_is_not_for_a_terminal(local: dict[str, str]) -> None:
    """It says what to do instead."""
    fill(as_config(local), 1)
    code, shown = on_a_terminal(local, "export", "--format", "parquet")
    assert (code, "give --output FILE" in shown) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1)])
def test_discard_asks_on_a_terminal(
    local: dict[str, str], typed: str, code: int, left: int
) -> None:
    """Only a yes deletes."""
    config = as_config(local)
    fill(config, 2)
    settle(config, 2, dead=[2])
    ended, shown = on_a_terminal(local, "dead", "discard", "2", typed=typed)
    assert (ended, "permanently?" in shown) == (code, True)
    assert call_json("--outbox", local["SDK_OUTBOX_PATH"], "status")["dead"] == left


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--limit", "0"],
        ["list", "--limit", "0", "--json"],
        ["export"],
        ["export", "--format", "csv"],
    ],
    ids=" ".join,
)
def test_a_reader_may_stop_reading(local: dict[str, str], arguments: list[str]) -> None:
    """`tracker-sync list | head -1` leaves no traceback behind."""
    fill(as_config(local), 1000)
    running = start(*arguments, environment=local)
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait(20) == 1
