"""Every row of the protocol's table "What the client does with each answer", over real HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import random
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from tests.support.server import (
    Answer,
    Reply,
    Request,
    ScriptedServer,
    answer,
    cut,
    error,
    receipt,
    redirect,
)
from tests.support.uploads import (
    account_of,
    contents,
    dead_letters,
    fill,
    numbered,
    state_of,
    uploading,
    wait_until,
)
from tracker import AgentPerformanceTracker
from tracker.outbox.store.ledger import Account

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeConfig


# --- 200 with a valid receipt -------------------------------------------------------------------


def test_a_valid_receipt_delivers_the_batch(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Accepted and duplicate events are delivered, in order and once."""
    settings = config(base_url=scripted_server.url)
    ids = fill(settings, numbered(5))
    scripted_server.script(receipt(duplicates=2))
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(10)
    assert [event["event_id"] for event in scripted_server.delivered] == ids
    assert len(scripted_server.requests) == 1
    assert account_of(settings) == Account(accepted=5, delivered=5)


def test_rejected_events_become_dead_letters_with_the_servers_words(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """A rejected event is kept with code and message; its neighbours are delivered."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["a", "bad", "c"])
    scripted_server.script(receipt(rejected={"bad": ("invalid_event", "no such rôle")}))
    with AgentPerformanceTracker(settings) as tracker:
        result = tracker.flush(10)
    assert contents(scripted_server.delivered) == ["a", "c"]
    assert dead_letters(settings) == [("bad", "invalid_event", "no such rôle")]
    assert account_of(settings) == Account(accepted=3, delivered=2, dead=1)
    assert (result.pending, len(scripted_server.requests)) == (0, 1)


@pytest.mark.parametrize(
    "message", ["\ud800 lone", "nul \0 nul", "x" * 5_000, "line\nline", "\x1b[31mred"]
)
def test_a_servers_odd_words_do_not_stop_the_rest(
    config: MakeConfig, scripted_server: ScriptedServer, message: str
) -> None:
    """A rejection in words that SQLite or a terminal cannot take still settles the batch."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["bad", "good"])
    scripted_server.script(receipt(rejected={"bad": ("odd", message)}))
    with AgentPerformanceTracker(settings) as tracker:
        result = tracker.flush(5)
    assert result.pending == 0
    [(_, code, kept)] = dead_letters(settings)
    assert code == "odd"
    assert kept.isprintable()


# --- answers that settle nothing ----------------------------------------------------------------

PORTAL = answer(200, "<html><title>Welcome to Hotel Wi-Fi</title></html>")

NOT_DELIVERED: dict[str, tuple[Reply, str]] = {
    "captive portal": (PORTAL, "200 without a valid receipt"),
    "empty 200": (answer(200), "200 without a valid receipt"),
    "JSON list": (answer(200, []), "200 without a valid receipt"),
    "other protocol": (receipt(changes={"protocol": 2}), "its protocol is not 1"),
    "protocol true": (receipt(changes={"protocol": True}), "its protocol is not 1"),
    "another batch": (receipt(changes={"first_event_id": "x"}), "another batch"),
    "other last id": (receipt(changes={"last_event_id": None}), "another batch"),
    "too few": (receipt(changes={"accepted": 2}), "do not add up"),
    "too many": (receipt(changes={"accepted": 4}), "do not add up"),
    "no counts": (receipt(changes={"accepted": None}), "counts"),
    "negative": (receipt(changes={"accepted": 4, "duplicates": -1}), "counts"),
    "boolean counts": (receipt(changes={"accepted": 2, "duplicates": True}), "counts"),
    "float counts": (receipt(changes={"accepted": 3.0}), "counts"),
    "rejects a stranger": (
        receipt(changes={"accepted": 2, "rejected": [{"event_id": "x", "code": "c"}]}),
        "not sent",
    ),
    "204": (answer(204), "204"),
    "201": (lambda request: dataclasses.replace(receipt()(request), status=201, accepts=()), "201"),
    "301": (redirect(301, "/elsewhere"), "301"),
    "304": (answer(304), "304"),
    "404": (answer(404, "no"), "404"),
    "404 in protocol words": (error(404, "not_found"), "404 not_found"),
    "405": (answer(405), "405"),
    "407": (answer(407), "407"),
    "418": (answer(418), "418"),
    "400 of a proxy": (answer(400, "<h1>Bad Request</h1>"), "400"),
    "422 of a framework": (answer(422, {"detail": []}), "422"),
    "400 with another error": (answer(400, {"error": "bad"}), "400"),
    "401": (error(401, "unauthorized"), "the server refuses the API key"),
    "403": (answer(403, "no"), "the server refuses the API key"),
    "408": (answer(408), "408"),
    "425": (answer(425), "425"),
    "429": (error(429, "too_many"), "429 too_many"),
    "500": (answer(500, "<pre>Traceback</pre>"), "500"),
    "502": (answer(502), "502"),
    "503": (error(503, "busy", "later"), "503 busy: later"),
    "599": (answer(599), "599"),
    "closed before answering": (cut(receipt()), "no answer"),
    "reset in mid-answer": (cut(receipt(), after=60, reset=True), "no answer"),
    "cut in the status line": (cut(receipt(), after=7), "no answer"),
    "cut in the head": (cut(receipt(), after=20), ""),
    "shorter than it says": (
        lambda request: dataclasses.replace(
            cut(receipt(), after=10**6)(request), claimed_length=10**6, cut_after=150
        ),
        "",
    ),
    "not HTTP": (Answer(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "no answer"),
    "broken gzip": (
        answer(200, gzip.compress(b"{}" * 1000)[:30], {"Content-Encoding": "gzip"}),
        "",
    ),
    "bytes that only claim gzip": (answer(200, b"plain", {"Content-Encoding": "gzip"}), ""),
    "redirect to nonsense": (redirect(302, "http://[::1"), "302"),
}


@pytest.mark.parametrize("case", NOT_DELIVERED)
def test_anything_else_keeps_everything_and_is_tried_again(
    config: MakeConfig, scripted_server: ScriptedServer, case: str
) -> None:
    """Nothing leaves the outbox, `status` can say why, and it is delivered once all is well."""
    reply, cause = NOT_DELIVERED[case]
    settings = config(base_url=scripted_server.url)
    ids = fill(settings, numbered(3))
    scripted_server.script(otherwise=reply)
    with uploading(settings) as tracker:
        scripted_server.wait_for(3)
        wait_until(lambda: state_of(settings).paused_because is not None, "a cause in the state")
        held = account_of(settings)
        state = state_of(settings)
        scripted_server.script(otherwise=receipt())
        tracker.flush(10)
    assert held == Account(accepted=3, pending=3)
    assert cause in str(state.paused_because)
    assert state.paused_because == state.last_error
    assert state.last_error_ms is not None
    assert state.next_attempt_ms is not None
    assert state.next_attempt_ms >= state.last_error_ms
    assert all(request.event_ids == ids for request in scripted_server.requests)
    assert [event["event_id"] for event in scripted_server.delivered] == ids
    assert account_of(settings) == Account(accepted=3, delivered=3)
    assert state_of(settings).paused_because is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_never_followed(
    config: MakeConfig, scripted_server: ScriptedServer, status: int
) -> None:
    """Nothing, and above all no API key, goes where a redirect points."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["a"])
    with ScriptedServer() as elsewhere:
        scripted_server.script(otherwise=redirect(status, elsewhere.url + "/v1/events"))
        with uploading(settings) as tracker:
            scripted_server.wait_for(3)
            tracker.flush(0.1)
            assert elsewhere.connections_made == 0
    assert account_of(settings).pending == 1
    assert f"{elsewhere.url}/v1/events, not followed" in str(state_of(settings).last_error)


# --- 400 and 422 with a protocol error body -----------------------------------------------------


@pytest.mark.parametrize(
    ("status", "bad"),
    [
        (400, {0}),
        (422, {99}),
        (400, {37}),
        (422, {0, 99}),
        (400, {3, 4, 5, 60}),
        (422, set(range(10))),
    ],
)
def test_a_bad_event_is_found_by_bisection(
    config: MakeConfig, scripted_server: ScriptedServer, status: int, bad: set[int]
) -> None:
    """The server refuses any batch with a bad event: exactly those die, the rest go in order."""
    settings = config(base_url=scripted_server.url, requests_per_minute=5_000)
    marks = {f"m{index}" for index in bad}

    def judge(request: Request) -> Answer:
        if marks.intersection(contents(request.events)):
            return error(status, "invalid_event", "one is bad")
        return receipt()(request)

    scripted_server.script(otherwise=judge)
    fill(settings, numbered(100))
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(20)
    good = [name for name in numbered(100) if name not in marks]
    assert contents(scripted_server.delivered) == good
    assert [letter[:2] for letter in dead_letters(settings)] == [
        (name, "invalid_event") for name in numbered(100) if name in marks
    ]
    assert all("one is bad" in letter[2] for letter in dead_letters(settings))
    assert account_of(settings) == Account(100, delivered=len(good), dead=len(bad))
    # Two for each halving, of which 100 events take 7, and some for going on.
    assert len(scripted_server.requests) <= 2 + 16 * len(bad)


def test_a_dead_letter_does_not_hold_up_later_events(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """After a refused event, new ones go out at once."""
    settings = config(base_url=scripted_server.url)
    scripted_server.script(error(422, "invalid_event"))
    with AgentPerformanceTracker(settings) as tracker:
        session = tracker.start_conversation("agent")
        tracker.flush(10)
        tracker.log_user_message(session, "next")
        assert tracker.flush(10).pending == 0
    assert [event["type"] for event in scripted_server.delivered] == ["message.logged"]


# --- 401 and 403 --------------------------------------------------------------------------------


def only_key(
    key: str, status: int = 401, headers: dict[str, str] | None = None
) -> Callable[[Request], Answer]:
    def judge(request: Request) -> Answer:
        if request.headers["authorization"] == f"Bearer {key}":
            return receipt()(request)
        return error(status, "unauthorized", "unknown key", headers)

    return judge


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_retried_slowly_and_shown(
    config: MakeConfig, scripted_server: ScriptedServer, status: int
) -> None:
    """The second request comes no earlier than half the longest pause, and `status` says why."""
    settings = config(base_url=scripted_server.url, backoff_base=0.001, backoff_cap=0.4)
    fill(settings, numbered(3))
    scripted_server.script(otherwise=only_key("new", status))
    with uploading(settings) as tracker:
        scripted_server.wait_for(3)
        state = state_of(settings)
        assert account_of(settings) == Account(accepted=3, pending=3)
        tracker.close(0)
    first, second, third, *_ = scripted_server.requests
    assert second.at - first.at >= 0.2
    assert third.at - second.at >= 0.2
    assert "the server refuses the API key" in str(state.paused_because)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "600"}])
def test_a_new_key_in_the_same_process_delivers_everything(
    config: MakeConfig, scripted_server: ScriptedServer, headers: dict[str, str]
) -> None:
    """A second tracker with a new key ends the pause at once, and no row is lost."""
    settings = config(base_url=scripted_server.url, backoff_cap=60)
    ids = fill(settings, numbered(3))
    scripted_server.script(otherwise=only_key("new", headers=headers))
    with uploading(settings) as old:
        scripted_server.wait_for(1)
        wait_until(lambda: state_of(settings).paused_because is not None, "the refusal is noted")
        with AgentPerformanceTracker(dataclasses.replace(settings, api_key="new")) as renewed:
            result = renewed.flush(5)
            renewed.close(0)
            old.close(0)
    assert result.pending == 0
    assert [event["event_id"] for event in scripted_server.delivered] == ids


def test_a_new_key_after_a_restart_delivers_everything(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """What was logged with a revoked key is delivered by the next start with a good one."""
    settings = config(base_url=scripted_server.url)
    scripted_server.script(otherwise=only_key("new", 403))
    with AgentPerformanceTracker(settings) as tracker:
        session = tracker.start_conversation("agent")
        tracker.log_user_message(session, "kept")
        tracker.flush(0)
        scripted_server.wait_for(1)
    with AgentPerformanceTracker(config(base_url=scripted_server.url, api_key="new")) as tracker:
        assert tracker.flush(10).pending == 0
    assert [event["seq"] for event in scripted_server.delivered] == [1, 2]


def test_a_new_key_in_the_file_is_used_without_a_restart(
    config: MakeConfig, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """It ends the pause of minutes that follows a refusal; no event shows it, nor the old one."""
    file = tmp_path / "api-key"
    file.write_text("key-of-yesterday")
    settings = config(
        base_url=scripted_server.url, backoff_cap=600, api_key=None, api_key_file=file
    )
    scripted_server.script(otherwise=only_key("key-of-today"))
    with uploading(settings) as tracker:
        tracker.track("agent.started")
        scripted_server.wait_for(1)
        wait_until(lambda: state_of(settings).paused_because is not None, "the refusal is noted")
        file.unlink()  # for a moment
        (tmp_path / "new").write_text("key-of-today\n")
        (tmp_path / "new").rename(file)
        wait_until(lambda: account_of(settings).pending == 0, "delivery with the new key")
        tracker.track("key.leaked", {"old": "key-of-yesterday", "new": "key-of-today"})
        tracker.close(5)
    sent = json.dumps(scripted_server.delivered)
    assert sent.count("[secret:tracker_key:") == 2
    assert "yesterday" not in sent
    assert "today" not in sent


# --- Retry-After --------------------------------------------------------------------------------


def date_in(seconds: float, *, server_clock: float | None = None) -> dict[str, str]:
    """Return headers with a date; by a server whose clock may stand anywhere."""
    now = time.time() if server_clock is None else server_clock
    headers = {"Retry-After": formatdate(now + seconds, usegmt=True)}
    return headers if server_clock is None else {**headers, "Date": formatdate(now, usegmt=True)}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Retry-After": "1"}, id="seconds"),
        pytest.param(date_in(1, server_clock=0), id="date of a server in 1970"),
    ],
)
def test_retry_after_is_kept_and_a_flush_does_not_shorten_it(
    config: MakeConfig, tmp_path: Path, headers: dict[str, str]
) -> None:
    """No request comes before the second that the server asked for is over."""
    with contextlib.ExitStack() as stack:
        servers, trackers = [], []
        for status in (408, 425, 429, 500, 502, 503):  # all at once, for each takes a second
            servers.append(stack.enter_context(ScriptedServer()))
            servers[-1].script(answer(status, headers=headers))
            settings = config(base_url=servers[-1].url, outbox_path=tmp_path / f"{status}.sqlite3")
            fill(settings, numbered(2))
            trackers.append(stack.enter_context(AgentPerformanceTracker(settings)))
        for server in servers:
            server.wait_for(1)
        for tracker in trackers:
            assert tracker.flush(10).pending == 0
        for server in servers:
            first, second = server.requests
            assert 1.0 <= second.at - first.at < 30
            assert len(server.delivered) == 2


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "120"}, 119, 121),
        ({"Retry-After": "999999999999999999999"}, 3599, 3601),
        ({"Retry-After": "7201"}, 3599, 3601),
        (date_in(100, server_clock=3e9), 99, 101),
        (date_in(10**7, server_clock=0), 3599, 3601),
        (date_in(-100, server_clock=1e9), -0.1, 1),
        ({"Retry-After": "-5"}, -0.1, 1),
        ({"Retry-After": "soon"}, -0.1, 1),
        ({"Retry-After": "119.5"}, 119, 121),
        ({"Retry-After": "Wed, 99 Foo 2026"}, -0.1, 1),
    ],
)
def test_retry_after_counts_for_at_most_an_hour(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    headers: dict[str, str],
    least: float,
    most: float,
) -> None:
    """`status` shows when the next attempt comes: as asked, within an hour, nonsense ignored."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["a"])
    scripted_server.script(otherwise=answer(503, headers=headers))
    with uploading(settings) as tracker:
        wait_until(lambda: state_of(settings).last_error_ms is not None, "the failure is noted")
        state = state_of(settings)
        before = len(scripted_server.requests)
        assert tracker.flush(0.1).pending == 1
        assert (len(scripted_server.requests) == before) is (least > 1)
        tracker.close(0)
    assert state.next_attempt_ms is not None
    assert state.last_error_ms is not None
    assert least <= (state.next_attempt_ms - state.last_error_ms) / 1000 <= most


def test_a_date_without_the_servers_own_clock_is_held_against_ours(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Without a Date header the device's clock has to do."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["a"])
    scripted_server.script(otherwise=answer(503, headers=date_in(100)))
    with uploading(settings) as tracker:
        wait_until(lambda: state_of(settings).next_attempt_ms is not None, "the failure is noted")
        state = state_of(settings)
        tracker.close(0)
    assert 97_000 <= (state.next_attempt_ms or 0) - (state.last_error_ms or 0) <= 101_000


def test_a_flush_cuts_short_a_pause_that_the_client_chose(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Without Retry-After, somebody who flushes does not wait for the backoff."""
    settings = config(base_url=scripted_server.url, backoff_base=60, backoff_cap=60)
    fill(settings, ["a"])
    # The pause is drawn from 0 to 60 s; a refused key waits for at least 30.
    scripted_server.script(answer(403))
    with uploading(settings) as tracker:
        wait_until(lambda: state_of(settings).next_attempt_ms is not None, "the failure is noted")
        assert tracker.flush(5).pending == 0


# --- 413 ----------------------------------------------------------------------------------------


def at_most(size: int) -> Callable[[Request], Answer]:
    """Return the reply of a server that takes so many bytes of decompressed body."""

    def judge(request: Request) -> Answer:
        if len(request.body) > size:
            return answer(413, "<html>nginx</html>")
        return receipt()(request)

    return judge


def test_too_large_batches_are_halved_and_the_size_is_remembered(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """A limit is found within a few requests, and never run into again."""
    settings = config(base_url=scripted_server.url)
    fill(settings, [f"{index} " + "x" * 1000 for index in range(200)])
    scripted_server.script(otherwise=at_most(50_000))
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(10)
        refused = [request for request in scripted_server.requests if len(request.body) > 50_000]
        assert len(refused) <= 4
        before = len(scripted_server.requests)
        session = tracker.start_conversation("agent")
        for _ in range(100):
            tracker.log_user_message(session, "y" * 1000)
        tracker.flush(10)
    later = scripted_server.requests[before:]
    assert max(len(request.body) for request in later) <= 50_000
    assert [event["seq"] for event in scripted_server.delivered] == list(range(1, 302))
    # Halving does not go further than it must: no more than four times the fewest requests.
    assert before <= 4 * (200 * 1400 // 50_000 + 1)


def test_a_single_event_that_is_too_large_becomes_a_dead_letter(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """It is set aside by name; those around it are delivered in order."""
    settings = config(base_url=scripted_server.url)
    big = "x" * 60_000
    fill(settings, ["a", "b", big, "c", "d"])
    scripted_server.script(otherwise=at_most(50_000))
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    assert contents(scripted_server.delivered) == ["a", "b", "c", "d"]
    [(content, code, message)] = dead_letters(settings)
    assert (content, code) == (big, "too_large")
    assert "413" in message


# --- all of them ---------------------------------------------------------------------------------


def test_many_answers_in_a_row_lose_and_reorder_nothing(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Through a random mix of failures, events are acknowledged once each, in order of seq."""
    settings = config(base_url=scripted_server.url, batch_max_events=20, read_timeout=0.3)
    troubles: list[Reply] = [reply for reply, _ in NOT_DELIVERED.values()]
    chance = random.Random(20261123)  # noqa: S311 - not a secret
    scripted_server.script(
        *(receipt() if chance.random() < 0.3 else chance.choice(troubles) for _ in range(60))
    )
    with AgentPerformanceTracker(settings) as tracker:
        session = tracker.start_conversation("agent")
        for index in range(300):
            tracker.log_user_message(session, f"m{index}")
        tracker.flush(30)
    assert [event["seq"] for event in scripted_server.delivered] == list(range(1, 302))
    assert account_of(settings) == Account(accepted=301, delivered=301)
