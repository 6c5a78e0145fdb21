"""`Uploader` on a metered link: what it sends when, and what it says while it does not."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import an_event, fill
from tests.support.uploads import state_of
from tracker.outbox.outbox import Outbox
from tracker.sync.destination import Delivery, Outcome
from tracker.sync.uploader import Uploader
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig
    from tracker.sync.destination import Upload
    from tracker.sync.pause import Pause

NOON, NIGHT = 12 * 3600.0, 23 * 3600.0
"""Of 1 January 1970, in UTC."""


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC0")
        time.tzset()
        yield
    time.tzset()


def answer_to(answer: Callable[[Upload], Delivery] | None, upload: Upload) -> Delivery:
    """Answer after asking for the next batch, as a destination may."""
    if upload.following is not None:
        upload.following()
    return answer(upload) if answer else Delivery(Outcome.DELIVERED)


class Link:
    """An outbox, an uploader, and clocks that go only as far as its pauses say."""

    def __init__(
        self, settings: APIConfig, answer: Callable[[Upload], Delivery] | None = None
    ) -> None:
        self.settings = settings
        self.outbox = Outbox(settings)
        self.destination = RecordingDestination(partial(answer_to, answer))
        self.passed, self.time_of_day = 0.0, NOON
        self.uploader = Uploader(
            self.outbox, settings, self.destination, lambda: self.passed, lambda: self.time_of_day
        )

    @property
    def sent(self) -> list[int]:
        return [event["seq"] for event in self.destination.events]

    def log(self, **event: Any) -> None:
        self.outbox.append(an_event(**event))

    def run(self, steps: int = 30) -> Pause:
        """Take steps until one says that there is nothing to do for now; return that pause."""
        for _ in range(steps):
            pause = self.uploader.step()
            if pause.seconds:
                return pause
        raise AssertionError(f"still busy after {steps} steps")


@pytest.fixture
def link(config: MakeConfig, request: pytest.FixtureRequest) -> Iterator[Link]:
    """A link with the settings that the test names, and three pending events."""
    made = config(**{"batch_max_events": 2, **request.param})
    fill(made, 3)
    opened = Link(made)
    yield opened
    opened.outbox.close()


def settings(**changes: Any) -> pytest.MarkDecorator:
    """Make `link` one with these settings."""
    return pytest.mark.parametrize("link", [changes], indirect=True, ids=[""])


window = settings(upload_window="22:00-06:00")
urgent = settings(upload_window="22:00-06:00", upload_outside_window="security.critical")


def critical(**data: Any) -> dict[str, Any]:
    said = {"kind": "access_denied", "severity": "critical", **data}
    return {"type": "security.reported", "data": said}


@window
def test_nothing_is_sent_outside_the_window(link: Link) -> None:
    """The outbox says why and until when, and the clock is read again within a minute."""
    pause = link.run()
    assert (pause.idle, pause.skippable) == (False, True)
    assert 1 <= pause.seconds <= 60
    assert link.sent == []
    state = state_of(link.settings)
    assert state.waits_because == "outside the upload window (22:00-06:00)"
    assert state.next_attempt_ms == 22 * 3600 * 1000
    assert (state.paused_because, state.last_error) == (None, None)
    link.time_of_day = NIGHT
    assert link.run().idle
    assert link.sent == [1, 2, 3]
    state = state_of(link.settings)
    assert (state.waits_because, state.next_attempt_ms) == (None, None)


@pytest.mark.parametrize("what", ["holds", "failures"])
def test_it_is_counted_when_the_outbox_says_why(
    config: MakeConfig, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that sees the count and reads the outbox got the reason of an earlier process."""
    made = config(upload_window="22:00-06:00")
    fill(made, 1)
    link = Link(made, lambda _: Delivery(Outcome.UNAVAILABLE, cause="no answer"))
    link.time_of_day = NOON if what == "holds" else NIGHT
    run, counted = link.outbox.run, []

    def noting(job: Any) -> Any:
        counted.append(getattr(link.uploader, what))
        return run(job)

    monkeypatch.setattr(link.outbox, "run", noting)
    link.run()
    assert getattr(link.uploader, what) == 1
    assert counted
    assert set(counted) == {0}
    link.outbox.close()


@window
def test_a_window_that_closes_stops_a_backlog_at_the_next_request(link: Link) -> None:
    """What was read in advance waits too, and the receipt of what was sent is recorded."""
    link.time_of_day = NIGHT
    link.uploader.step()
    link.time_of_day = NOON
    link.run()
    assert link.sent == [1, 2]
    assert state_of(link.settings).settled_through == 2


@window
def test_with_nothing_to_send_nothing_waits(link: Link) -> None:
    """An idle device in a closed window does what any idle device does."""
    link.time_of_day = NIGHT
    link.run()
    link.time_of_day = NOON
    assert link.run().idle
    assert state_of(link.settings).waits_because is None


@window
def test_the_wait_is_written_once(link: Link) -> None:
    """A day in a closed window costs the disk one write, not one a minute."""
    with closing(sqlite3.connect(link.outbox.path)) as other:
        versions = []
        for _ in range(10):
            link.run()
            versions.append(other.execute("PRAGMA data_version").fetchone())
            link.time_of_day += 60
    assert len(set(versions)) == 1


@window
def test_a_critical_event_waits_too_unless_it_was_said(link: Link) -> None:
    """By default the window holds for everything."""
    link.log(**critical())
    link.run()
    assert link.sent == []


@urgent
def test_a_critical_event_takes_along_what_was_committed_before_it(link: Link) -> None:
    """Order holds: nothing before it is left behind, and nothing after it is sent."""
    link.run()
    assert link.sent == []
    link.log(**critical())
    link.uploader.step()
    link.log()  # before the rest of them is sent
    link.run()
    pause = link.run()
    assert link.sent == [1, 2, 3, 4]
    assert pause.seconds == 1.0, "another one is looked for every second"
    assert not pause.idle
    assert state_of(link.settings).waits_because is not None
    link.log(**critical())
    link.run()
    assert link.sent == [1, 2, 3, 4, 5, 6]


@urgent
@pytest.mark.parametrize(
    "event",
    [
        critical(severity="high"),
        {"type": "thing.happened", "data": {"severity": "critical"}},
        {"type": "security.reported", "data": {"details": {"severity": "critical"}}},
    ],
)
def test_nothing_else_passes_a_closed_window(link: Link, event: dict[str, Any]) -> None:
    """Only events of the security tracker whose own severity is critical."""
    link.log(**event)
    link.run()
    assert link.sent == []


@urgent
def test_a_row_that_is_no_json_hinders_nothing(link: Link) -> None:
    """It becomes a dead letter when its turn comes; what may pass, passes."""
    link.outbox.run(
        lambda job: job.connection.exec_driver_sql(
            "UPDATE events SET type = 'security.reported', data = '{' WHERE seq = 2"
        )
    )
    link.run()
    assert link.sent == []
    link.log(**critical())
    link.run()
    assert link.sent == [1, 3, 4]


@window
def test_an_order_sends_what_is_pending_at_that_moment(link: Link) -> None:
    """`tracker-sync flush --now` is for what is there, not for all that follows."""
    link.run()
    link.uploader.order()
    link.log()
    while link.run().idle:
        pass
    assert link.sent == [1, 2, 3]


@window
def test_an_order_is_for_one_outbox(link: Link) -> None:
    """Where another takes its place, as after damage, the same numbers are other events."""
    link.uploader.order()
    link.run()
    link.log()
    link.outbox.path.unlink()
    link.outbox.maintain(now=True)
    link.uploader.outbox_id = link.outbox.owner.outbox_id
    link.run()
    with link.outbox.reading() as connection:
        assert connection.exec_driver_sql("SELECT max(seq) FROM pending").scalar_one() <= 3
    assert link.sent == [1, 2, 3]


no = settings(may_upload=lambda: False)


@no
def test_nothing_is_sent_without_permission(link: Link) -> None:
    """The reason is known, nothing counts as failed, and an order goes over it."""
    pause = link.run()
    assert pause.skippable
    assert link.sent == []
    state = state_of(link.settings)
    assert state.waits_because == "may_upload said no; it is asked again every 30 s"
    assert (state.paused_because, state.next_attempt_ms) == (None, None)
    assert (link.uploader.failures, link.uploader.holds) == (0, 1)
    link.uploader.order()
    assert link.run().idle
    assert link.sent == [1, 2, 3]


def test_permission_is_asked_before_each_request_and_only_then(config: MakeConfig) -> None:
    """Not while nothing is pending: the question may be costly too."""
    answers = [True, False, True]
    asked: list[None] = []

    def may_upload() -> bool:
        asked.append(None)
        return answers[len(asked) - 1]

    made = config(batch_max_events=2, may_upload=may_upload)
    fill(made, 3)
    link = Link(made)
    link.run()
    assert (link.sent, len(asked)) == ([1, 2], 2)
    link.run()
    assert (link.sent, len(asked)) == ([1, 2, 3], 3)
    assert link.run().idle
    assert len(asked) == 3
    link.outbox.close()


@settings(may_upload=lambda: 1 / 0)
def test_a_function_that_fails_is_trouble(link: Link) -> None:
    """Unlike a no, it is shown as a failure: somebody has to correct it."""
    link.run()
    state = state_of(link.settings)
    assert state.paused_because is not None
    assert "may_upload raised ZeroDivisionError" in state.paused_because
    assert (state.last_error, state.waits_because) == (state.paused_because, None)


@settings(
    upload_window="22:00-06:00",
    upload_outside_window="security.critical",
    may_upload=lambda: False,
)
def test_an_urgent_event_needs_permission_like_any_other(link: Link) -> None:
    """Only the window lets it pass: a link that must not be used is not used."""
    link.log(**critical())
    link.run()
    assert link.sent == []


def test_the_mean_rate_holds(config: MakeConfig) -> None:
    """Bytes that the destination says it sent, over the time that the pauses take."""
    sizes: list[int] = []

    def answer(upload: Upload) -> Delivery:
        sizes.append(sum(map(len, upload.events)) // 4)  # as compression would make it
        return Delivery(Outcome.DELIVERED, sent_bytes=sizes[-1])

    made = config(upload_bytes_per_second=1_000, total_timeout=2)
    fill(made, 100)
    link = Link(made, answer)
    while not (pause := link.run()).idle:
        assert not pause.skippable, "a flush does not make the link wider"
        link.passed += pause.seconds
    assert link.sent == list(range(1, 101))
    assert len(sizes) > 10, "a batch is small enough for a link of that rate"
    assert sum(sizes[:-1]) <= 1_000 * link.passed + 1
    assert sum(sizes) >= 0.9 * 1_000 * link.passed, "and the rate is used"
    link.outbox.close()


@settings(upload_bytes_per_second=10)
def test_a_wait_for_the_rate_is_shown(link: Link) -> None:
    """For as long as it lasts; a destination that does not count sends the events as they are."""
    pause = link.run()
    assert link.sent == [1]
    assert pause.seconds > 10
    state = state_of(link.settings)
    assert state.waits_because == "upload_bytes_per_second (10)"
    assert state.next_attempt_ms == round((NOON + pause.seconds) * 1000)


def test_an_attempt_that_reached_nobody_costs_nothing(config: MakeConfig) -> None:
    """Otherwise a device without a network would wait for bytes that it never sent."""
    made = config(upload_bytes_per_second=1)
    fill(made, 1)
    link = Link(made, lambda _: Delivery(Outcome.UNAVAILABLE))
    assert link.run().seconds <= 0.05
    assert link.run().skippable
    assert link.destination.sizes == [1, 1]
    link.outbox.close()
