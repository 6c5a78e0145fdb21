"""Every kind of bad input: refused by name, and what the outbox held is still delivered."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.support.settings import quick
from tracker import (
    AgentPerformanceTracker,
    APIConfig,
    ConfigurationError,
    NotAnOutboxError,
    OutboxError,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorClient


@pytest.fixture
def settings(config: MakeConfig, client: CollectorClient) -> APIConfig:
    """A configuration that delivers to the collector."""
    return config(base_url=client.url, client_id=client.client_id, api_key=client.api_key)


@pytest.fixture
def held(settings: APIConfig, client: CollectorClient) -> Iterator[APIConfig]:
    """An outbox that holds two events; they must be delivered after the test, and they only."""
    quiet = dataclasses.replace(settings, flush_interval=3600)
    with AgentPerformanceTracker(quiet) as tracker:
        session = tracker.start_conversation("agent")
        tracker.log_user_message(session, "held")
        tracker.close(0)
    yield settings
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(20)
        assert tracker.flush(0).pending == 0
    assert [event["type"] for event in client.events()] == [
        "conversation.started",
        "message.logged",
    ]
    assert [outbox["missing"] for outbox in client.outboxes()] == [[]]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def cycle() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["self"] = ring
    return ring


# --- arguments ----------------------------------------------------------------------------------

WHEN = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc)

Call: TypeAlias = Callable[[AgentPerformanceTracker, str], object]


def start(argument: str, value: object) -> Call:
    given: dict[str, Any] = {"agent_id": "a", argument: value}
    return lambda tracker, _: tracker.start_conversation(**given)


def message(argument: str, value: object) -> Call:
    given: dict[str, Any] = {"role": "agent", "content": "x", argument: value}
    return lambda tracker, session: tracker.log_message(**{"session_id": session, **given})


def tool(argument: str, value: object) -> Call:
    given: dict[str, Any] = {"name": "search", "arguments": {}, argument: value}
    return lambda tracker, session: tracker.log_tool_call(**{"session_id": session, **given})


def end(argument: str, value: object) -> Call:
    given: dict[str, Any] = {argument: value}
    return lambda tracker, session: tracker.end_conversation(**{"session_id": session, **given})


WRONG: dict[str, tuple[Call, str, str]] = {
    # The wrong type of each argument of each call.
    **{
        f"start {name}": (
            start(name, value),
            name,
            words,
        )
        for name, value, words in [
            ("agent_id", 7, "is of type int; give a str"),
            ("agent_id", None, "is None; give a str"),
            ("user_id", 7, "is of type int; give a str"),
            ("session_id", b"s", "is of type bytes; give a str"),
            ("run_id", 1.5, "is of type float; give a str"),
            ("metadata", [1], "is of type list; give a dict with str keys"),
            ("metadata", "{}", "is of type str; give a dict with str keys"),
        ]
    },
    **{
        f"message {name} {type(value).__name__} {words[:12]}": (
            message(name, value),
            name,
            words,
        )
        for name, value, words in [
            ("session_id", 7, "is of type int; give a str"),
            ("session_id", None, "is None, and no conversation is current; pass a session_id"),
            ("role", 7, "is of type int; give one of 'user', 'agent', 'system', 'tool'"),
            ("role", "robot", "is 'robot'; give one of 'user', 'agent', 'system', 'tool'"),
            ("content", None, "is None; pass the text as content="),
            ("content", b"x", "is of type bytes; give a str"),
            ("content", {"text": "x"}, "is of type dict; give a str"),
            ("content", "x\ud800", "has a lone surrogate (U+D800) at index 1"),
            ("response_time_ms", "12", "is of type str; give a number of milliseconds, from 0"),
            ("response_time_ms", -1, "is -1.0; give milliseconds, from 0 to 1,000,000,000,000"),
            ("response_time_ms", math.nan, "is nan; give a number of milliseconds"),
            ("tokens_used", 1.5, "is of type float; give an int, 0 or more"),
            ("tokens_used", -1, "is out of range; give an int from 0 to 1,000,000,000,000"),
            ("model", 4, "is of type int; give a str"),
            ("metadata", 4, "is of type int; give a dict with str keys"),
        ]
    },
    **{
        f"tool {name} {type(value).__name__}": (
            tool(name, value),
            name,
            words,
        )
        for name, value, words in [
            ("session_id", 7, "is of type int; give a str"),
            ("name", None, "is None; give a str"),
            ("arguments", {1, 2}, "set is not JSON-serialisable; give dict, list, str, int"),
            ("result", WHEN, "datetime is not JSON-serialisable; give dict, list, str"),
            ("error", OSError("x"), "is of type OSError; give a str"),
            ("duration_ms", "1", "is of type str; give a number of milliseconds"),
            ("call_id", 1, "is of type int; give a str"),
        ]
    },
    **{
        f"end {name} {value!r:.9}": (
            end(name, value),
            name,
            words,
        )
        for name, value, words in [
            ("session_id", 7, "is of type int; give a str"),
            ("quality_score", 0.99, "is 0.99; give a number from 1.0 to 5.0"),
            ("quality_score", 5.01, "is 5.01; give a number from 1.0 to 5.0"),
            ("quality_score", math.nan, "is nan; give a number from 1.0 to 5.0"),
            ("quality_score", "5", "is of type str; give a number from 1.0 to 5.0"),
            ("quality_score", True, "is of type bool; give a number from 1.0 to 5.0"),
            ("outcome", 1, "is of type int; give a str"),
            ("user_feedback", 1, "is of type int; give a str"),
            ("metadata", 1, "is of type int; give a dict with str keys"),
        ]
    },
    "fail error_message": (
        lambda t, s: t.record_failed_session(s, 7),  # type: ignore[arg-type]  # the point
        "error_message",
        "is of type int; give a str",
    ),
    "fail without a reason": (
        lambda t, s: t.record_failed_session(s),
        "error_message",
        "is None; give error_message or exception",
    ),
    "feedback score": (
        lambda t, s: t.record_feedback(s, score=math.inf),
        "score",
        "is inf; give a finite number",
    ),
    "feedback comment": (
        lambda t, s: t.record_feedback(s, comment=5),  # type: ignore[arg-type]  # the point
        "comment",
        "is of type int; give a str",
    ),
    "feedback of nothing": (
        lambda t, s: t.record_feedback(s, source="user"),
        "score",
        "is missing, and so is comment; give one or both",
    ),
    "feedback source": (
        lambda t, s: t.record_feedback(s, score=1, source=""),
        "source",
        "is empty; give a non-empty string",
    ),
    "resume metadata": (
        lambda t, s: t.resume_conversation(s, metadata=()),  # type: ignore[arg-type]  # the point
        "metadata",
        "is of type tuple; give a dict with str keys",
    ),
    # Metadata that JSON cannot hold.
    **{
        f"metadata with {what}": (
            message("metadata", value),
            path,
            words,
        )
        for what, value, path, words in [
            ("a datetime", {"at": WHEN}, "metadata['at']", "datetime is not JSON-serialisable"),
            ("bytes", {"u": {"photo": b""}}, "metadata['u'].photo", "bytes is not JSON-serialisa"),
            (
                "a cycle",
                cycle(),
                "metadata['self']",
                "contains itself; JSON cannot represent",
            ),
            ("NaN", {"x": [math.nan]}, "metadata['x'][0]", "nan is not JSON-serialisable"),
            ("an int key", {1: 2}, "metadata", "has the key 1 of type int; give keys as str"),
            ("a huge int", {"n": 10**5000}, "metadata['n']", "is an integer of more than 4,298"),
            ("100 levels", nested(100), "metadata['a']" + ".a" * 63, "is nested more than 64 lev"),
        ]
    },
    # Lengths.
    "5 MiB of content": (
        lambda t, s: t.log_user_message(s, "x" * 5 * 1024 * 1024),
        "content",
        "bytes; at most 1,048,576 are allowed (max_event_bytes)",
    ),
    **{
        f"{what} {name}": (
            start(name, value),
            name,
            words,
        )
        for name in ("agent_id", "user_id", "session_id", "run_id")
        for what, value, words in [
            ("empty", "", "is empty; give a non-empty string"),
            ("300 characters of", "x" * 300, "has 300 characters; at most 256 are allowed"),
        ]
    },
    "empty session": (
        lambda t, s: t.log_user_message("", "x"),
        "session_id",
        "is empty; give a non-empty string",
    ),
    "300 characters of session": (
        lambda t, s: t.log_user_message("x" * 300, "x"),
        "session_id",
        "has 300 characters; at most 256 are allowed",
    ),
}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPerformanceTracker]:
    """A tracker whose events stay pending, for all calls that store none."""
    folder = tmp_path_factory.mktemp("offline")
    with AgentPerformanceTracker(quick(folder, base_url="http://127.0.0.1:9")) as tracker:
        tracker.start_conversation("agent", session_id="begun")
        yield tracker


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused_by_name(offline: AgentPerformanceTracker, case: str) -> None:
    """The message says which argument, what it is, and what is allowed; nothing is stored."""
    call, argument, words = WRONG[case]
    with pytest.raises(ValidationError) as caught:
        call(offline, "begun")
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
    assert words in str(caught.value)
    assert offline.flush(0).pending == 1


def test_after_every_wrong_argument_the_outbox_delivers_what_it_held(
    settings: APIConfig, client: CollectorClient
) -> None:
    """All the refused calls at once, between good ones: the good ones arrive, without a gap."""
    with AgentPerformanceTracker(settings) as tracker:
        session = tracker.start_conversation("agent")
        for number, (call, _, _) in enumerate(WRONG.values()):
            with pytest.raises(ValidationError):
                call(tracker, session)
            tracker.log_user_message(session, f"good {number}")
        assert tracker.flush(20).pending == 0
    received = client.events()
    assert [event["data"].get("content") for event in received[1:]] == [
        f"good {number}" for number in range(len(WRONG))
    ]
    assert [event["seq"] for event in received] == list(range(1, len(WRONG) + 2))


def test_an_unknown_session_costs_a_warning_and_no_message(
    settings: APIConfig, client: CollectorClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What is logged to it is stored and delivered all the same."""
    with AgentPerformanceTracker(settings) as tracker:
        tracker.log_user_message("never-started", "kept")
        tracker.flush(20)
    assert "session 'never-started' was never started in this outbox" in caplog.text
    assert [event["data"]["content"] for event in client.events()] == ["kept"]


def test_a_closed_tracker_says_so(held: APIConfig) -> None:
    """Every call after `close` is refused in plain words, but for another close."""
    tracker = AgentPerformanceTracker(dataclasses.replace(held, base_url=held.base_url))
    tracker.close(0)
    tracker.close()
    for call in (
        lambda: tracker.start_conversation("a"),
        lambda: tracker.log_user_message("s", "x"),
        lambda: tracker.flush(),
        tracker.__enter__,
    ):
        with pytest.raises(TrackerClosedError, match="was closed; make a new one to log again"):
            call()


# --- settings -----------------------------------------------------------------------------------


def test_a_missing_key_is_refused(held: APIConfig) -> None:
    """With all the ways to get one."""
    with pytest.raises(ConfigurationError, match=r"no API key: set .* SDK_API_KEY, or .* or pass"):
        AgentPerformanceTracker()


def test_a_config_of_the_wrong_type_is_refused(held: APIConfig) -> None:
    """As when the key itself is passed instead."""
    with pytest.raises(ConfigurationError, match="config is of type str; give an APIConfig"):
        AgentPerformanceTracker("my-key")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("url", ["ftp://localhost", "localhost:8080", "unix:///run/x.sock"])
def test_an_unknown_scheme_is_refused(held: APIConfig, url: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError, match=r"base_url is .* scheme"):
        dataclasses.replace(held, base_url=url)


def test_a_trailing_slash_makes_no_difference(held: APIConfig) -> None:
    """It is the same collector, so the same outbox; the events go where they should."""
    with AgentPerformanceTracker(
        dataclasses.replace(held, base_url=held.base_url + "/")
    ) as tracker:
        assert tracker.config.base_url == held.base_url


def test_a_path_prefix_is_another_collector(held: APIConfig) -> None:
    """An outbox for /a is not for /b; the message names both."""
    with pytest.raises(ConfigurationError) as caught:
        AgentPerformanceTracker(dataclasses.replace(held, base_url=held.base_url + "/prefix"))
    assert f"sends to {held.base_url};" in str(caught.value)
    assert f"{held.base_url}/prefix" in str(caught.value)


def test_two_base_urls_on_one_outbox_are_refused_in_one_process(held: APIConfig) -> None:
    """Else one collector's events would reach the other; the first tracker goes on."""
    with AgentPerformanceTracker(held) as tracker:
        with pytest.raises(ConfigurationError) as caught:
            AgentPerformanceTracker(dataclasses.replace(held, base_url="https://other.example"))
        assert tracker.flush(20).pending == 0
    message = str(caught.value)
    assert str(held.outbox_path) in message
    assert "https://other.example" in message
    assert held.base_url in message
    assert "outbox_path" in message


OPEN = """
import sys
from tracker import AgentPerformanceTracker, APIConfig, ConfigurationError
try:
    AgentPerformanceTracker(APIConfig(
        api_key="k", client_id=sys.argv[2], base_url=sys.argv[3], outbox_path=sys.argv[1]))
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize("open_here", [True, False])
def test_two_base_urls_on_one_outbox_are_refused_in_two_processes(
    held: APIConfig, open_here: bool
) -> None:
    """Whether or not the first process still runs."""
    here = AgentPerformanceTracker(held) if open_here else None
    try:
        run = subprocess.run(
            [sys.executable, "-c", OPEN, str(held.outbox_path), held.client_id, "https://b.c"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        if here is not None:
            here.close(0)
    assert f"{held.outbox_path} belongs to client {held.client_id!r} and sends to" in run.stdout
    assert "https://b.c" in run.stdout
    assert "SDK_OUTBOX_PATH" in run.stdout
    assert run.stderr == ""


def test_another_client_id_on_one_outbox_is_refused(held: APIConfig) -> None:
    """Receivers know events by client, so those of two must not mix."""
    with pytest.raises(ConfigurationError, match=r"belongs to client .* says client 'other'"):
        AgentPerformanceTracker(dataclasses.replace(held, client_id="other"))


# --- paths --------------------------------------------------------------------------------------


def refused(settings: APIConfig, path: Path) -> str:
    """Return what is said about an outbox at `path`; nothing may be left beside it."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    with pytest.raises(TrackerError) as caught:
        AgentPerformanceTracker(dataclasses.replace(settings, outbox_path=path))
    after = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    assert after == before
    assert str(path) in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_path_below_a_file_is_refused(held: APIConfig, tmp_path: Path) -> None:
    """The folder cannot be made, as root either."""
    (tmp_path / "file").write_bytes(b"precious")
    message = refused(held, tmp_path / "file" / "outbox.sqlite3")
    assert message.startswith("OutboxError: ")
    assert "SDK_OUTBOX_PATH" in message
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_an_unwritable_folder_is_refused(held: APIConfig, tmp_path: Path) -> None:
    """The message says what to do about it."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    message = refused(held, folder / "outbox.sqlite3")
    assert "Permission denied. Make its folder writable for this user" in message


def test_a_default_client_id_that_cannot_be_kept_is_refused(
    held: APIConfig, tmp_path: Path
) -> None:
    """The message names the file and both ways out."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"client id cannot be stored in .*client-id"):
        APIConfig(api_key="k", outbox_path=tmp_path / "file" / "outbox.sqlite3")


def test_a_folder_is_refused(held: APIConfig, tmp_path: Path) -> None:
    """With a hint that a file in it is wanted."""
    (tmp_path / "folder").mkdir()
    message = refused(held, tmp_path / "folder")
    assert message.startswith("NotAnOutboxError: ")
    assert message.endswith("is a folder; give the path of a file in it")


@pytest.mark.parametrize(
    "content",
    [
        b"xy",  # SQLite itself takes a file of one byte for an empty one
        b"name,age\nann,7\n" * 500,
        b"\0" * 4096,
        b"SQLite format 3\0" + b"garbage" * 1000,
        b"SQLite format 3\0",
        os.urandom(8192),
    ],
    ids=["two bytes", "CSV", "zeros", "only a header", "16 bytes", "noise"],
)
def test_a_file_that_is_not_sqlite_is_refused_and_untouched(
    held: APIConfig, tmp_path: Path, content: bytes
) -> None:
    """Byte for byte: it may be somebody's only copy."""
    path = tmp_path / "precious"
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    message = refused(held, path)
    assert message.startswith(("NotAnOutboxError: ", "OutboxError: "))
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == 1


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("schema", ["table", "empty but signed", "alembic"])
def test_another_programs_database_is_refused_and_untouched(
    held: APIConfig, tmp_path: Path, journal: str, schema: str
) -> None:
    """Even one whose tables are called as ours, or that alembic migrates too."""
    path = tmp_path / "precious"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={journal}")
    if schema == "table":
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO events (name) VALUES ('precious')")
    elif schema == "alembic":
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    else:
        connection.execute("PRAGMA application_id = 4711")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    message = refused(held, path)
    assert message.startswith("NotAnOutboxError: ")
    assert "is another program's SQLite database; it was not changed" in message
    assert path.read_bytes() == content


def test_another_programs_unfinished_log_is_untouched(held: APIConfig, tmp_path: Path) -> None:
    """A database that was left with a write-ahead log keeps both files as they are."""
    original = tmp_path / "original"
    connection = sqlite3.connect(original)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE notes (text)")
    connection.commit()
    folder = tmp_path / "crashed"
    folder.mkdir()
    for name in ("", "-wal"):  # as a crash would leave them
        content = (tmp_path / f"original{name}").read_bytes()
        (folder / f"precious{name}").write_bytes(content)
    connection.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NotAnOutboxError):
        AgentPerformanceTracker(dataclasses.replace(held, outbox_path=folder / "precious"))
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before}
    assert after == before


def test_a_symbolic_link_is_refused(held: APIConfig, tmp_path: Path) -> None:
    """Whoever plants a link must not have us write through it, dangling or not."""
    (tmp_path / "target").write_bytes(b"precious")
    for name in ("target", "missing"):
        link = tmp_path / f"link-to-{name}"
        link.symlink_to(tmp_path / name)
        message = refused(held, link)
        assert message.startswith("NotAnOutboxError: ")
        assert "is a symbolic link; give the path of the file itself" in message
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "missing").exists()


def test_a_link_to_an_outbox_is_refused_too(held: APIConfig, tmp_path: Path) -> None:
    """Its lock files would lie elsewhere, and two names would mean two locks."""
    link = tmp_path / "link"
    link.symlink_to(held.outbox_path)
    assert "is a symbolic link" in refused(held, link)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_special_file_is_refused_at_once(held: APIConfig, tmp_path: Path, kind: str) -> None:
    """Opening a named pipe must not wait for somebody at its other end."""
    path = tmp_path / "special"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    assert refused(held, path).startswith(("NotAnOutboxError: ", "OutboxError: "))


def test_an_empty_file_becomes_an_outbox(settings: APIConfig, client: CollectorClient) -> None:
    """As `touch` or `mktemp` leave one."""
    settings.outbox_path.touch()
    with AgentPerformanceTracker(settings) as tracker:
        tracker.start_conversation("agent")
        assert tracker.flush(20).pending == 0
    assert len(client.events()) == 1


def test_the_errors_are_what_their_names_say() -> None:
    """One `except` for storage, one for settings, one for all."""
    assert issubclass(NotAnOutboxError, OutboxError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ValidationError, TrackerError)
