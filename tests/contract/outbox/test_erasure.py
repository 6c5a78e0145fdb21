"""Erasing a user: what goes, what stays, what the collector does, what the files still hold."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.conversations import ROOT
from tracker import Tracker, ValidationError, canonical
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.integrity import verify
from tracker.outbox.maintenance import erase
from tracker.outbox.maintenance.scrub import Scrubber
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement
from tracker.outbox.queue.settlement import DAMAGED, DeadLetter
from tracker.queries import subject
from tracker.queries.source import EVENTS
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorProcess
    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction
    from tracker.sync.destination import Upload

MARKER = {"erased": True}


def words(name: str, size: int = 400) -> str:
    """Return a text that no other text looks like, for finding it in files."""
    return f"<{name}>" * (size // (len(name) + 2) + 1)


def raw(path: Path) -> bytes:
    """Return the bytes of a database and of the files beside it, without the random ballast."""
    files = sorted(path.parent.glob(path.name + "*"))
    return b"".join(each.read_bytes() for each in files if each.suffix != ".ballast")


def stored(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
    return [{**row, "data": json.loads(row["data"])} for row in rows]


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    opened = Outbox(config(on_error="raise"))
    yield opened
    opened.close()


def note(outbox: Outbox, text: str, user: str | None = "u", session: str | None = "s") -> str:
    event = make_event("test.noted", {"text": text}, user_id=user, session_id=session)
    outbox.append(event)
    return event.event_id


def settle(outbox: Outbox, most: int = 500, dead: tuple[int, ...] = ()) -> None:
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, most, 1 << 22)
    letters = [DeadLetter(seq, "invalid_event", "no <quoted>") for seq in dead]
    outbox.run(settlement.settle(batch, letters))


def problems(outbox: Outbox) -> list[tuple[int | None, str]]:
    with outbox.snapshot() as connection:
        return [(found.seq, found.kind) for found in verify.verify(connection).problems]


def edit(outbox: Outbox, statement: str) -> None:
    """Do what somebody with a SQLite tool could do."""
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute(statement)


# --- end to end ---------------------------------------------------------------------------------


def test_a_user_is_forgotten_here_and_at_the_collector(
    config: MakeConfig, collector: CollectorProcess
) -> None:
    """Delivered, refused and pending events alike; both still verify; others are untouched."""
    settings_ = config(base_url=collector.url, api_key=collector.api_key)
    with Tracker(settings_) as tracker:
        talk = tracker.performance
        session = talk.start_conversation("agent-1", user_id="u", metadata={"a": words("begin")})
        talk.log_user_message(session, words("delivered"))
        tracker.track("app.noted", {"text": words("by session")}, session_id=session)
        other = talk.start_conversation("agent-1", user_id="other")
        talk.log_user_message(other, words("kept"))
        assert tracker.flush(timeout=30).pending == 0
        collector.stop()
        talk.log_user_message(session, words("pending"))
        result = tracker.compliance.erase_subject("u", "asked <for> it")
        assert (result.erased, result.scrubbed, len(result.event_ids)) == (4, True, 1)
        found = raw(settings_.outbox_path)
        for gone in (b"<begin>", b"<delivered>", b"<by session>", b"<pending>"):
            assert gone not in found
        assert b"<kept>" in found
        assert tracker.security.verify_integrity().ok
        assert [entry.erased for entry in talk.get_conversation_history(session)] == [True, True]
        collector.start()
        assert tracker.flush(timeout=30).pending == 0
    events = {event["event_id"]: event for event in collector.events()}
    named = events[result.event_ids[0]]["data"]
    assert named["subject"] == result.subject
    assert named["reason"] == "asked <for> it"
    for event_id, event in events.items():
        assert (event["data"] == MARKER) == (event_id in named["event_ids"])
    assert sum(event["data"] == MARKER for event in events.values()) == 4
    found = raw(collector.database)
    for gone in (b"<begin>", b"<delivered>", b"<by session>", b"<pending>"):
        assert gone not in found
    assert b"<kept>" in found
    (report,) = collector.outboxes()
    assert (report["chain"], report["missing"]) == ("intact", [])


def test_a_batch_in_flight_is_erased_when_it_has_arrived(
    config: MakeConfig, shared_collector: CollectorProcess
) -> None:
    """It goes out as it was read; the erasure event that follows takes it back."""
    from tracker.sync.http import HTTPDestination

    client = shared_collector.client("erases in flight")
    settings_ = config(base_url=client.url, client_id=client.client_id, api_key=client.api_key)
    sending, may_send = threading.Event(), threading.Event()

    class Slow(HTTPDestination):
        def send(self, upload: Upload) -> Delivery:
            sending.set()
            may_send.wait(30)
            return super().send(upload)

    outbox = Outbox(settings_)
    outbox_id = outbox.owner.outbox_id
    outbox.close()
    with Tracker(settings_, destination=lambda: Slow(settings_, outbox_id)) as tracker:
        tracker.track("app.noted", {"text": words("in flight")}, user_id="u")
        assert sending.wait(30)
        result = tracker.compliance.erase_subject("u")
        may_send.set()
        assert tracker.flush(timeout=30).pending == 0
        assert tracker.security.verify_integrity().ok
    assert client.events()[0]["data"] == MARKER
    assert result.erased == 1
    assert b"<in flight>" not in raw(shared_collector.database)


# --- what is about a user -----------------------------------------------------------------------


def test_events_about_a_user(outbox: Outbox) -> None:
    """Those that name the user, and those of the user's conversations that name nobody."""
    mine = [
        note(outbox, "1", user="u", session="s"),
        note(outbox, "2", user=None, session="s"),
        note(outbox, "3", user="u", session=None),
    ]
    note(outbox, "4", user="v", session="s")
    note(outbox, "5", user=None, session="t")
    note(outbox, "6", user=None, session=None)
    result = outbox.erase("u", {})
    rows = stored(outbox.path)
    assert [row["event_id"] for row in rows if row["data"] == MARKER] == mine
    # What only another event leads to comes first: after a cut-off, that one still leads there.
    assert rows[-1]["data"]["event_ids"] == [mine[1], mine[0], mine[2]]
    assert rows[-1]["user_id"] is None
    assert result.erased == 3


def test_what_surrounds_the_users_conversation_goes_too(config: MakeConfig) -> None:
    """A handler's arguments, the spans around and beside it, and scores repeat what was said."""
    settings_ = config()
    with Tracker(settings_, destination=RecordingDestination) as tracker:

        @tracker.observe
        def handle(question: str) -> None:
            with tracker.span("retrieve", input=question):
                tracker.track("app.noted", {"text": question})
            with tracker.conversation("agent-1", user_id="u") as c:
                c.user(question)
            raise ValueError(question)

        with (
            pytest.raises(ValueError, match="gone"),
            tracker.span("request", input=words("gone")) as request,
        ):
            handle(words("gone"))
        tracker.record_score("good", value=True, trace_id=request.trace_id, comment=words("gone"))
        with tracker.span("request", input=words("kept")) as other:
            pass
        tracker.record_score("good", value=True, trace_id=other.trace_id, comment=words("kept"))
        tracker.compliance.erase_subject("u")
        assert tracker.security.verify_integrity().ok
    found = raw(settings_.outbox_path)
    assert b"<gone>" not in found
    assert found.count(words("kept").encode()) == 2


def test_of_a_trace_of_several_users_only_the_spans_around_go(config: MakeConfig) -> None:
    settings_ = config()
    with Tracker(settings_, destination=RecordingDestination) as tracker:
        with tracker.span("batch", input=words("gone")):
            for user in ("u", "v"):
                with (
                    tracker.span("one", input=words(f"of {user}")),
                    tracker.conversation("agent-1", user_id=user) as c,
                ):
                    c.user(words(f"said by {user}"))
            tracker.track("batch.done", {"text": words("kept")})
        tracker.compliance.erase_subject("u")
        assert tracker.security.verify_integrity().ok
    found = raw(settings_.outbox_path)
    for text in (b"<gone>", b"<of u>", b"<said by u>"):
        assert text not in found
    for text in (b"<kept>", b"<of v>", b"<said by v>"):
        assert text in found


def test_an_erasure_that_is_cut_off_leaves_the_way_to_the_rest(config: MakeConfig) -> None:
    """Whatever was erased by then: what only other events lead to goes before these."""

    def span(name: str, parent: str | None = None, trace: str = "0", **whose: Any) -> Event:
        place = {"trace_id": trace * 32, "span_id": f"{name:0>16}"}
        if parent is not None:
            place["parent_span_id"] = f"{parent:0>16}"
        return make_event("otel.span", {"name": name}, trace=canonical.encode(place), **whose)

    outbox = Outbox(config())
    about = [
        span("b1"),
        span("b2", "b1"),
        span("b3", "b2", session_id="s"),
        span("b4", "b3", user_id="u"),
        span("b5", "b4"),
        span("b6", "b5"),
        span("c1", trace="1", user_id="u"),
        span("c2", "c1", trace="1", session_id="t"),
        make_event("test.noted", {}, session_id="t"),
        make_event("score.recorded", {"target_trace_id": "1" * 32}),
    ]
    others = [span("d1", "b2", user_id="v"), span("d2", "d1"), span("d3", "b1")]
    outbox.append_all([*about, *others])
    wanted = {event.event_id for event in about}
    while wanted:
        with outbox.snapshot() as connection:
            found = subject.find(connection, EVENTS, "u")
        assert set(found) == wanted
        outbox.run(next(erase.jobs(found[:1], {"subject": "x"}, 4_096)))
        wanted.discard(found[0])
    assert problems(outbox) == []
    assert all(row["data"] != MARKER for row in stored(outbox.path)[len(about) : -len(about)])
    outbox.close()


def test_a_damaged_trace_keeps_nobody_from_being_erased(outbox: Outbox) -> None:
    note(outbox, "1")
    note(outbox, "2", user=None, session=None)
    for trace in ("[]", "{", '{"trace_id":[]}', '{"span_id":1,"trace_id":2}'):
        edit(outbox, f"UPDATE events SET trace = '{trace}'")  # noqa: S608 - constants
        assert outbox.erase("u", {}).erased <= 1
    assert stored(outbox.path)[0]["data"] == MARKER


def test_what_the_server_said_of_a_dead_letter_goes_too(outbox: Outbox) -> None:
    """It may quote the event; the code stays, and so does the loss account."""
    note(outbox, "a")
    settle(outbox, dead=(1,))
    outbox.erase("u", {})
    row = stored(outbox.path)[0]
    assert (row["dead_code"], row["dead_message"]) == ("invalid_event", "erased")
    assert b"<quoted>" not in raw(outbox.path)
    assert problems(outbox) == []
    outbox.run(dead_letters.retry())
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 500, 1 << 22)
    assert json.loads(batch.rows[0].wire)["data"] == MARKER


def test_a_second_erasure_finds_what_came_since(outbox: Outbox) -> None:
    """Erasure events are not erased; that there was nothing to erase is on record as well."""
    note(outbox, "a")
    assert outbox.erase("u", {}).erased == 1
    note(outbox, "b")
    assert outbox.erase("u", {}).erased == 1
    nothing = outbox.erase("u", {})
    assert (nothing.erased, len(nothing.event_ids)) == (0, 1)
    assert stored(outbox.path)[-1]["data"]["event_ids"] == []
    assert problems(outbox) == []


def test_many_events_are_named_by_several(config: MakeConfig) -> None:
    """No erasure event exceeds the bound, and together they name each event once."""
    outbox = Outbox(config(max_event_bytes=1024))
    mine = [note(outbox, str(number)) for number in range(50)]
    result = outbox.erase("u", {"reason": "x"})
    events = [row["data"] for row in stored(outbox.path)[50:]]
    assert len(events) == len(result.event_ids) > 2
    assert [each for event in events for each in event["event_ids"]] == mine
    assert problems(outbox) == []
    with pytest.raises(ValidationError, match="reason"):
        outbox.erase("u", {"reason": "x" * 720})
    outbox.close()


def test_events_in_memory_are_erased_too(outbox: Outbox) -> None:
    """They are written out first, whatever kept them there."""
    outbox.intake.buffer.hold(make_event("test.noted", {"text": words("memory")}, user_id="u"))
    assert outbox.erase("u", {}).erased == 1
    assert outbox.buffered == 0
    assert b"<memory>" not in raw(outbox.path)


# --- markers without an erasure -----------------------------------------------------------------


def test_a_marker_that_nothing_covers_is_tampering(outbox: Outbox) -> None:
    """`verify` names it, and it is not sent as if it were an erased event."""
    note(outbox, "a", user="v")
    note(outbox, "b")
    outbox.erase("u", {})
    edit(outbox, """UPDATE events SET data = '{"erased":true}' WHERE seq = 1""")
    assert problems(outbox) == [(1, "digest")]
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 500, 1 << 22)
    assert (list(batch.damaged), [row.seq for row in batch.rows]) == ([1], [2, 3])


def test_an_edited_erasure_event_covers_nothing(outbox: Outbox) -> None:
    """Naming another event by hand shows as what it is."""
    hidden = note(outbox, "a", user="v")
    named = note(outbox, "b")
    outbox.erase("u", {})
    hide(outbox, 1)
    edit(outbox, f"UPDATE events SET data = replace(data, '{named}', '{hidden}') WHERE seq = 3")  # noqa: S608 - two ids
    assert set(problems(outbox)) == {(1, "erasure"), (2, "erasure"), (3, "digest")}


@pytest.mark.parametrize(
    "change",
    [
        "timestamp_ms = timestamp_ms - 86400000",
        "agent_id = 'agent-9'",
        "session_id = 'another'",
        "type = 'feedback.recorded'",
        "user_id = 'somebody else'",
        "context = '{}'",
        "trace = '{}'",
        "sealed = zeroblob(64)",
        "sealed = NULL",
        "sealed = NULL, timestamp_ms = 1",
        "salt = zeroblob(16)",
        'data = \'{"text":"put in its mouth"}\'',
    ],
)
@pytest.mark.parametrize("key", [None, "a chain key, long enough"])
def test_an_erased_event_cannot_be_given_anything_else(
    config: MakeConfig, change: str, key: str | None
) -> None:
    """Time, agent, session and type are still what they were; so is that nothing else is known."""
    outbox = Outbox(config(chain_key=key))
    note(outbox, "a", user="v")
    note(outbox, "b")
    outbox.erase("u", {})
    assert problems(outbox) == []
    edit(outbox, f"UPDATE events SET {change} WHERE seq = 2")  # noqa: S608 - as above
    assert [seq for seq, _ in problems(outbox)] == [2]
    outbox.close()


def hide(outbox: Outbox, seq: int) -> None:
    """Erase an event as somebody can who knows how, but without an event that says so."""
    fields = stored(outbox.path)[seq - 1]
    data = canonical.encode(fields["data"])
    sealed = canonical.seal(fields["user_id"], data, fields["salt"]).hex()
    blank = f"user_id = NULL, salt = NULL, data = '{canonical.ERASED}'"
    edit(outbox, f"UPDATE events SET {blank}, sealed = x'{sealed}' WHERE seq = {seq}")  # noqa: S608 - ours


def test_what_was_erased_cannot_be_guessed(
    config: MakeConfig, collector: CollectorProcess, tmp_path: Path
) -> None:
    """Not even who knows all but a PIN finds it: nothing that stays is made of it alone.

    Every run of bytes in all files that could be the salt is tried with the right answer.
    """
    said = {"content": "My PIN is 407193", "role": "user"}
    with Tracker(config(base_url=collector.url, api_key=collector.api_key)) as tracker:
        tracker.track("app.noted", said, user_id="+491511234567")
        assert tracker.flush(timeout=30).pending == 0
        result = tracker.compliance.erase_subject("+491511234567")
        assert result.guessable == 0
        assert tracker.flush(timeout=30).pending == 0
        tracker.compliance.export_audit(tmp_path / "audit.jsonl")
    files = [raw(config().outbox_path), raw(collector.database)]
    files.append((tmp_path / "audit.jsonl").read_bytes())
    row = stored(config().outbox_path)[0]
    assert (row["user_id"], row["salt"]) == (None, None)
    for content in files:
        assert b"+49151" not in content
        for salt in possible_salts(content):
            assert canonical.seal("+491511234567", canonical.encode(said), salt) != row["sealed"]
        assert row["sealed"] in content or row["sealed"].hex().encode() in content
    subject = hashlib.sha256(bytes.fromhex(result.salt) + b"+491511234567").hexdigest()
    assert result.subject == subject
    assert not any(bytes.fromhex(result.salt) in content for content in files)
    assert not any(result.salt.encode() in content for content in files)


def possible_salts(content: bytes) -> set[bytes]:
    """Return all 16 bytes in a row, and all 32 hex digits in a row, of which none is only zeros."""
    runs = {content[at : at + 16] for at in range(len(content) - 15)}
    for found in re.finditer(rb"(?=([0-9a-f]{32}))", content):
        runs.add(bytes.fromhex(found[1].decode()))
    return {run for run in runs if run.count(run[0]) < 16}


def test_events_of_before_there_were_salts(outbox: Outbox) -> None:
    """They keep their user and a digest that a guess can be held against; the result says so."""
    event = make_event("test.noted", {"text": "yes"}, user_id="u")
    digest = canonical.digest(canonical.envelope(*event[:7]))
    outbox.append(event._replace(salt=None, digest=digest))
    note(outbox, "a")
    assert problems(outbox) == []
    result = outbox.erase("u", {})
    assert (result.erased, result.guessable) == (2, 1)
    rows = stored(outbox.path)
    assert [row["user_id"] for row in rows] == ["u", None, None]
    assert rows[2]["data"]["unsalted"] == [event.event_id]
    assert problems(outbox) == []
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 500, 1 << 22)
    assert (list(batch.damaged), len(batch.rows)) == ([], 3)
    edit(outbox, "UPDATE events SET sealed = NULL WHERE seq = 2")
    assert problems(outbox) == [(2, "erasure")]


def test_an_uncovered_marker_becomes_a_dead_letter(config: MakeConfig) -> None:
    """The uploader sets it aside as damaged and goes on."""
    destination = RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE, code="x"))
    with Tracker(config(), destination=lambda: destination) as tracker:
        tracker.track("app.noted", {"n": 1})
        outbox = Outbox(config())
        edit(outbox, """UPDATE events SET data = '{"erased":true}'""")
        destination._answer = None
        tracker.flush(timeout=10)
        assert stored(outbox.path)[0]["dead_code"] == DAMAGED
        outbox.close()
    assert all(event["data"] != MARKER for event in destination.events)


# --- what stays as long as it is needed ---------------------------------------------------------


def test_an_erasure_event_outlives_what_it_names(config: MakeConfig) -> None:
    """Retention and the operator leave it alone until the last event that it names is gone."""
    outbox = Outbox(config(retention={"compliance.*": 0, "test.*": 10}))
    note(outbox, "a")
    outbox.erase("u", {})
    settle(outbox)
    later = "UPDATE events SET delivered_at_ms = delivered_at_ms - 86400000"
    edit(outbox, later)
    assert outbox.prune() == 0
    assert problems(outbox) == []
    edit(outbox, f"{later} * 10")
    assert outbox.prune() == 1
    assert outbox.prune() == 1
    assert [row["type"] for row in stored(outbox.path)] == ["retention.applied"] * 2
    outbox.close()


def test_a_dead_erasure_event_cannot_be_discarded_while_it_is_needed(outbox: Outbox) -> None:
    """Nor does the size policy give up a pending one."""
    note(outbox, "a")
    outbox.erase("u", {})
    settle(outbox, dead=(2,))
    assert outbox.run(dead_letters.discard()) == 0
    assert problems(outbox) == []
    outbox.run(dead_letters.retry())
    assert outbox.prune(retention_days=-1) == 1, "what it names"
    settle(outbox, dead=(2,))
    assert outbox.run(dead_letters.discard()) == 1


# --- the files ----------------------------------------------------------------------------------


def texts(outbox: Outbox, users: int, count: int) -> dict[str, list[bytes]]:
    """Log texts of all sizes for some users and deliver most; return what each said."""
    sizes = random.Random(2)  # noqa: S311 - sizes, not secrets
    said: dict[str, list[bytes]] = {f"u{number}": [] for number in range(users)}
    for number in range(count):
        user = f"u{number % users}"
        mark = f"{user}-{number:05}"
        note(
            outbox,
            words(mark, size=sizes.choice((24, 80, 480, 1_200, 4_800))),
            user=user,
            session=None,
        )
        said[user].append(mark.encode())
    for _ in range(count // 100 - 1):
        settle(outbox, most=100)
    return said


@pytest.mark.slow
def test_no_file_holds_what_was_erased(outbox: Outbox) -> None:
    """Whatever sizes and moves between pages there were: db, WAL and shm are searched raw."""
    said = texts(outbox, users=3, count=1_200)
    edit(outbox, "DELETE FROM events WHERE seq % 7 = 0")  # by a tool that overwrites nothing
    before = raw(outbox.path)
    # All but what SQLite wrote its list of free pages over.
    assert sum(mark in before for mark in said["u1"]) > 380
    assert outbox.erase("u1", {}).scrubbed
    after = raw(outbox.path)
    assert [mark for mark in said["u1"] if mark in after] == []
    assert sum(mark in after for mark in said["u0"]) > 300
    assert outbox.path.with_name(outbox.path.name + "-wal").stat().st_size < 100_000


@contextmanager
def old_snapshot(path: Path) -> Iterator[None]:
    """Read an old state of the outbox, as another program might, until the block ends."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        yield
        reader.execute("ROLLBACK")


def test_a_reader_of_an_old_state_puts_scrubbing_off(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The result and the log say so, nobody waits for long, and pruning finishes it."""
    monkeypatch.setattr(Scrubber, "patience_seconds", 0.2)
    note(outbox, words("seen"))
    with old_snapshot(outbox.path):
        result = outbox.erase("u", {})
        assert (result.erased, result.scrubbed) == (1, False)
        assert "old state" in caplog.text
        note(outbox, "logging goes on", user="v")
    assert b"<seen>" in raw(outbox.path)
    outbox.prune()
    assert b"<seen>" not in raw(outbox.path)
    assert problems(outbox) == []


def test_a_reader_that_ends_in_time_is_waited_for(outbox: Outbox) -> None:
    """The erasure then leaves no trace at once."""
    note(outbox, words("seen"))
    reading, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with old_snapshot(outbox.path):
            reading.set()
            may_end.wait(30)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(30)
    threading.Timer(0.3, may_end.set).start()
    assert outbox.erase("u", {}).scrubbed
    thread.join()
    assert b"<seen>" not in raw(outbox.path)


# --- one story ----------------------------------------------------------------------------------

_ERASER = """
import sys
from tracker import APIConfig
from tracker.outbox.maintenance import erase
from tracker.outbox.outbox import Outbox

erase.MOST = 5
outbox = Outbox(APIConfig(api_key="k", client_id="test-client", outbox_path=sys.argv[1]))
print("ready", flush=True)
outbox.erase("u", {})
"""


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [1, 3, 10, 30, 60, 90])
def test_a_kill_during_erasure_leaves_no_half_erased_event(outbox: Outbox, chunks: int) -> None:
    """Every marker is covered, and calling again erases the rest and scrubs the files."""
    for number in range(500):
        note(outbox, words(f"n{number:04}", 300))
    process = subprocess.Popen(
        [sys.executable, "-c", _ERASER, str(outbox.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    erased = 0
    while process.poll() is None and erased < chunks:
        with closing(sqlite3.connect(outbox.path)) as connection:
            query = "SELECT count(*) FROM events WHERE type = 'compliance.erased'"
            (erased,) = connection.execute(query).fetchone()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert problems(outbox) == []
    markers = sum(row["data"] == MARKER for row in stored(outbox.path))
    assert markers >= 5 * chunks
    result = outbox.erase("u", {})
    assert result.erased == 500 - markers
    assert result.scrubbed
    assert not re.search(rb"<n\d{4}>", raw(outbox.path))
    assert problems(outbox) == []


class WithoutRoom:
    """A transaction in which rows can be changed, but no event appended."""

    def __init__(self, transaction: Transaction) -> None:
        self.connection = transaction.connection

    def append(self, _: object) -> None:
        raise OSError(28, "No space left on device")


def test_a_failure_between_rows_and_event_undoes_both(outbox: Outbox) -> None:
    """One transaction: nothing is erased without an event that says so."""
    event_id = note(outbox, "a")
    [job] = erase.jobs([event_id], {}, 1 << 20)
    with pytest.raises(OutboxError):
        outbox.run(lambda transaction: job(WithoutRoom(transaction)))  # type: ignore[arg-type]
    assert stored(outbox.path)[0]["data"] == {"text": "a"}
    assert problems(outbox) == []


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["log", "erase", "deliver", "retry", "discard", "prune"]),
            st.sampled_from(["u", "v", None]),
        ),
        max_size=20,
    )
)
def test_whatever_is_done_around_erasures_verifies(
    config: MakeConfig, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """Logging, erasing, delivering, pruning in any order: sound, and what goes out is covered."""
    path = tmp_path_factory.mktemp("steps") / "outbox.sqlite3"
    outbox = Outbox(config(outbox_path=path, retention={"compliance.*": 0}))
    for step, user in steps:
        if step == "log":
            note(outbox, "text", user=user)
        elif step == "erase":
            outbox.erase(user or "u", {})
        elif step == "deliver":
            with outbox.reading() as connection:
                due = batches.next_batch(connection, 3, 1 << 22)
            assert not due.damaged
            if due.rows:
                dead = [DeadLetter(due.rows[-1].seq, "x", "y")] if user is None else []
                outbox.run(settlement.settle(due, dead))
        elif step == "retry":
            outbox.run(dead_letters.retry())
        elif step == "discard":
            outbox.run(dead_letters.discard())
        else:
            outbox.prune(retention_days=-1)
        assert problems(outbox) == []
    outbox.close()
