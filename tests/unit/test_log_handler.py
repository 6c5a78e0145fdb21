"""What `TrackerHandler` makes of a record."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stored import stored
from tracker import APIConfig, AsyncTracker, Tracker, TrackerClosedError, ValidationError
from tracker.log_handler import TrackerHandler
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeTracker(BaseTracker):
    """Keeps what a handler records."""

    def __init__(self) -> None:
        super().__init__(APIConfig(api_key="k", disabled=True))
        self.recorded: list[dict[str, Any]] = []
        self.ids: list[tuple[object, ...]] = []
        self.before: Callable[[], object] = lambda: None

    def _record_gathered(self, type: str, data: dict[str, Any], **ids: object) -> str:
        self.before()
        assert type == "log.recorded"
        self.recorded.append({name: value for name, value in data.items() if value is not None})
        self.ids.append((ids["session_id"], ids["agent_id"], ids["user_id"]))
        return "id"


@pytest.fixture
def fake() -> FakeTracker:
    return FakeTracker()


@pytest.fixture
def logger(fake: FakeTracker) -> Iterator[logging.Logger]:
    made = logging.getLogger("agent")
    handler = TrackerHandler(fake)
    made.addHandler(handler)
    made.setLevel(logging.DEBUG)
    yield made
    made.removeHandler(handler)
    made.setLevel(logging.NOTSET)


def test_an_event_has_all_fields_of_its_log_record(
    fake: FakeTracker, logger: logging.Logger
) -> None:
    """Level, logger, message with its arguments, ids, and whatever else was given."""
    logger.getChild("x").warning(
        "%d of %s",
        3,
        "four",
        extra={"session_id": "s", "agent_id": "a", "user_id": "u", "order": 7, "what": {1}},
    )
    assert fake.recorded == [
        {
            "level": "WARNING",
            "logger": "agent.x",
            "message": "3 of four",
            "extra": {"order": 7, "what": [1]},
        }
    ]
    assert fake.ids == [("s", "a", "u")]


def test_a_traceback_has_a_field_of_its_own(fake: FakeTracker, logger: logging.Logger) -> None:
    """Its traceback stands in a field of its own; without one there is no such field."""
    try:
        raise LookupError("here")
    except LookupError:
        logger.exception("failed")
    (found,) = fake.recorded
    assert found["message"] == "failed"
    assert found["exception"].startswith("Traceback (most recent call last):")
    assert found["exception"].endswith("LookupError: here")
    logger.info("no exception", exc_info=(None, None, None))
    assert "exception" not in fake.recorded[1]


def test_a_stack_has_a_field_of_its_own(fake: FakeTracker, logger: logging.Logger) -> None:
    """As `stack_info=True` asks for it; without that there is no such field."""
    logger.warning("where am I?", stack_info=True)
    (found,) = fake.recorded
    assert found["stack"].startswith("Stack (most recent call last):")
    assert 'logger.warning("where am I?", stack_info=True)' in found["stack"]
    logger.warning("here")
    assert "stack" not in fake.recorded[1]


def test_long_messages_are_cut_off(fake: FakeTracker, logger: logging.Logger) -> None:
    """So that every record fits into an event."""
    logger.info("x" * 5_000_000)
    assert stored(fake.recorded[0]["message"]).endswith("… (5,000,000 characters)")


def test_levels_and_filters(fake: FakeTracker, logger: logging.Logger) -> None:
    """As for any handler."""
    (handler,) = logger.handlers
    handler.setLevel(logging.INFO)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.debug("too low")
    logger.info("a secret")
    logger.info("kept")
    assert [record["message"] for record in fake.recorded] == ["kept"]


def test_records_of_trackers_own_loggers_are_passed_over(fake: FakeTracker) -> None:
    """The logger `tracker` and below, from the root too; not one that only begins like it."""
    handler = TrackerHandler(fake)
    for name in ("tracker", "tracker.cli", "tracker_of_mine", "root"):
        handler.handle(logging.makeLogRecord({"name": name, "msg": name}))
    handler.handle(logging.makeLogRecord({"name": "urllib3", "threadName": "tracker-sync"}))
    assert [record["message"] for record in fake.recorded] == ["tracker_of_mine", "root"]


def test_what_is_logged_meanwhile_is_passed_over(fake: FakeTracker, logger: logging.Logger) -> None:
    """A redaction hook that logs, say: no recursion, and the next record is taken again."""
    fake.before = lambda: logger.info("again and again")
    logger.info("one")
    logger.info("two")
    assert [record["message"] for record in fake.recorded] == ["one", "two"]


def test_failures_are_handled_as_logging_does(
    fake: FakeTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller is not troubled; stderr is told each time, but of a closed tracker only once.

    A record that cannot be put together is stored all the same.
    """

    def closed() -> None:
        raise TrackerClosedError("it was closed")

    handler = TrackerHandler(fake)
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("not a number",)}))
    told = capsys.readouterr()
    assert told.err.count("--- Logging error ---") == 1
    (record,) = fake.recorded
    assert (record["message"], record["arguments"]) == ("%d", ["not a number"])
    fake.recorded.clear()
    fake.before = closed
    for _ in range(100):
        handler.handle(logging.makeLogRecord({"msg": "x"}))
    told = capsys.readouterr()
    assert told.err.count("--- Logging error ---") == 1
    assert "TrackerClosedError: it was closed" in told.err
    assert told.out == ""
    fake.before = lambda: None
    handler.handle(logging.makeLogRecord({"msg": "goes on"}))
    assert [record["message"] for record in fake.recorded] == ["goes on"]


def test_ids_that_are_no_ids_cost_nothing_else(fake: FakeTracker, logger: logging.Logger) -> None:
    """A number or UUID counts as its text; what cannot be an id is kept beside the others."""
    given = uuid.uuid4()
    logger.info("a", extra={"user_id": 42, "session_id": given})
    for wrong in ("", "x" * 300, ["u"], True):
        logger.info("b", extra={"user_id": wrong, "order": 9})
        assert fake.recorded[-1]["extra"] == {"user_id": wrong, "order": 9}
    assert fake.ids == [(str(given), None, "42"), *[(None, None, None)] * 4]
    assert "extra" not in fake.recorded[0]


@pytest.mark.parametrize("kind", [AsyncTracker, lambda _: None, lambda _: 5, lambda _: Tracker])
def test_what_is_no_tracker_is_refused_at_once(kind: Any) -> None:
    """Every log call would fail otherwise, each with a traceback."""
    with pytest.raises(
        ValidationError, match=r"tracker: is of type .*; give a tracker whose calls"
    ):
        TrackerHandler(kind(APIConfig(api_key="k", disabled=True)))
