"""Log records of an application, as events in a real outbox."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker
from tracker.log_handler import TrackerHandler
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer


@pytest.fixture
def tracker(
    config: MakeConfig, destination: RecordingDestination
) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(config(), destination=lambda: destination) as opened:
        yield opened


@pytest.fixture
def at_root(tracker: AgentPerformanceTracker) -> Iterator[TrackerHandler]:
    """A handler at the root, where everything arrives, with every level of every logger on."""
    root, handler = logging.getLogger(), TrackerHandler(tracker)
    levels = {}
    for name in (
        "root",
        "tracker",
        "sqlalchemy",
        "sqlalchemy.engine",
        "sqlalchemy.pool",
        "urllib3",
    ):
        levels[name] = logging.getLogger(name).level
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def logged(
    tracker: AgentPerformanceTracker, destination: RecordingDestination
) -> list[dict[str, Any]]:
    tracker.flush()
    return [event for event in destination.events if event["type"] == "log.recorded"]


def test_a_record_becomes_an_event(
    tracker: AgentPerformanceTracker, destination: RecordingDestination, at_root: TrackerHandler
) -> None:
    """With the session given, and the agent and user of that; or with those of the context."""
    logger = logging.getLogger("agent")
    given = tracker.start_conversation("a", user_id="u")
    logger.info("by extra", extra={"session_id": given})
    with tracker.conversation("b", user_id="v") as c:
        logger.info("by context")
        logger.info("both", extra={"session_id": given})
        logger.info("helper", extra={"agent_id": "helper"})
    logger.info("neither")
    ids = [
        (e["data"]["message"], e["session_id"], e["agent_id"], e["user_id"])
        for e in logged(tracker, destination)
    ]
    assert ids == [
        ("by extra", given, "a", "u"),
        ("by context", c.session_id, "b", "v"),
        ("both", given, "a", "u"),
        ("helper", c.session_id, "helper", "v"),
        ("neither", None, None, None),
    ]


def test_at_the_root_with_everything_on_it_does_not_feed_on_itself(
    config: MakeConfig, scripted_server: ScriptedServer, at_root: TrackerHandler
) -> None:
    """Over HTTP, with SQLAlchemy and urllib3 at DEBUG: one event for each of the host's records."""
    settings = config(
        base_url=scripted_server.url, outbox_path=config().outbox_path.with_name("o.sqlite3")
    )
    with AgentPerformanceTracker(settings) as over_http:
        at_root._tracker = over_http
        logging.getLogger("agent").info("one")
        over_http.log_user_message(over_http.start_conversation("a"), "hello")
        over_http.resume_conversation("unknown")
        over_http.flush()
        time.sleep(0.3)
        over_http.flush()
        over_http.observe()(
            lambda: logging.getLogger("sqlalchemy.engine").info("the host's own query")
        )()
        over_http.flush()
        sent = scripted_server.delivered
    assert [event["data"].get("message", event["type"]) for event in sent] == [
        "one",
        "conversation.started",
        "message.logged",
        "conversation.resumed",
        "the host's own query",
        "function.observed",
    ]


def test_a_destination_that_logs_does_not_keep_itself_busy(
    config: MakeConfig, destination: RecordingDestination
) -> None:
    """What an upload logs makes no event, which would make an upload, and so on."""

    class Talkative(RecordingDestination):
        def send(self, upload: Any) -> Any:
            logging.getLogger("talkative").warning("sending")
            return super().send(upload)

    made = Talkative()
    logger = logging.getLogger("talkative")
    with AgentPerformanceTracker(config(), destination=lambda: made) as tracker:
        handler = TrackerHandler(tracker)
        logger.addHandler(handler)
        logger.warning("the host's")
        tracker.flush()
        time.sleep(0.2)
        tracker.flush()
        logger.removeHandler(handler)
    assert [event["data"]["message"] for event in made.events] == ["the host's"]


def test_many_threads_log_at_once_with_everything_on(
    tracker: AgentPerformanceTracker, destination: RecordingDestination, at_root: TrackerHandler
) -> None:
    """Nothing blocks, though each commit logs too; every record arrives once."""

    def talk(number: int) -> None:
        for index in range(30):
            logging.getLogger("agent").info("%d-%d", number, index)
            tracker.log_user_message("s", "x")

    threads = [threading.Thread(target=talk, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "two threads wait for each other"
    messages = [event["data"]["message"] for event in logged(tracker, destination)]
    assert sorted(messages) == sorted(f"{n}-{i}" for n in range(8) for i in range(30))


def test_behind_a_queue(
    tracker: AgentPerformanceTracker, destination: RecordingDestination
) -> None:
    """A QueueListener in another thread keeps the ids that came as extra."""
    records: queue.Queue[Any] = queue.Queue()
    logger = logging.getLogger("queued")
    sender = logging.handlers.QueueHandler(records)
    logger.addHandler(sender)
    listener = logging.handlers.QueueListener(records, TrackerHandler(tracker))
    listener.start()
    logger.warning("later", extra={"session_id": "s"})
    listener.stop()
    logger.removeHandler(sender)
    (event,) = logged(tracker, destination)
    assert (event["data"]["message"], event["session_id"]) == ("later", "s")


def test_nothing_goes_to_stdout(
    tracker: AgentPerformanceTracker,
    at_root: TrackerHandler,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nor, when all is well, to stderr."""
    logging.getLogger("agent").info("hello")
    with tracker.conversation("a"):
        tracker.observe()(len)("abc")
    tracker.flush()
    assert capfd.readouterr() == ("", "")
