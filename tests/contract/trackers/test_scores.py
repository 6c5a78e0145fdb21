"""Scores: recorded for a conversation, an event or a trace, and read back in every place."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import call
from tests.support.recorded import Recorded
from tracker import Score, ScoreSummary, Tracker, ValidationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

TRACE = "0af7651916cd43dd8448eb211c80319c"
LATER = datetime(2026, 11, 2, 12, tzinfo=timezone.utc)


def test_a_score_belongs_to_the_current_conversation(recorded: Recorded) -> None:
    """With its agent and user; a number, True or False, or a category."""
    tracker = recorded.tracker
    with tracker.conversation("a", user_id="u") as c:
        tracker.record_score("helpful", 4, source="user", comment="quite")
        c.score("resolved", True)
        c.score("topic", "billing", source="judge")
    scores = [event for event in recorded.events if event["type"] == "score.recorded"]
    assert {(e["session_id"], e["agent_id"], e["user_id"]) for e in scores} == {
        (c.session_id, "a", "u")
    }
    assert [event["data"] for event in scores] == [
        {"name": "helpful", "value": 4, "source": "user", "comment": "quite"},
        {"name": "resolved", "value": True},
        {"name": "topic", "value": "billing", "source": "judge"},
    ]


def test_a_score_of_an_event_belongs_to_its_conversation(recorded: Recorded) -> None:
    """Long after, and from within another one."""
    tracker = recorded.tracker
    with tracker.conversation("a", user_id="u") as c:
        answer = c.agent("Hi there!")
    with tracker.conversation("b"):
        tracker.record_score("helpful", True, event_id=answer)
        tracker.record_score("helpful", False, event_id="of another device")
    tracker.record_score("helpful", 0.5, trace_id=TRACE)
    first, second, third = (e for e in recorded.events if e["type"] == "score.recorded")
    assert (first["session_id"], first["agent_id"], first["user_id"]) == (c.session_id, "a", "u")
    assert first["data"]["target_event_id"] == answer
    assert second["agent_id"] == "b"
    assert (third["session_id"], third["data"]["target_trace_id"]) == (None, TRACE)


def test_scores_are_summed_up_by_name(recorded: Recorded) -> None:
    """Each kind of value in its way. Feedback is a score; without a number it does not count."""
    tracker = recorded.tracker
    for value in (1, 4.5, 3):
        tracker.record_score("helpful", value, session_id="s")
    for flag in (True, True, False, True):
        tracker.record_score("resolved", flag, session_id="s")
    for topic in ("billing", "other", "billing"):
        tracker.record_score("topic", topic, session_id="s")
    tracker.record_feedback("s", score=5)
    tracker.record_feedback("s", comment="great")
    feedback, helpful, resolved, topics = tracker.get_scores()
    assert feedback == ScoreSummary("feedback", "feedback", 1, 1, 5, 5, 5)
    assert (helpful.count, helpful.min, helpful.max) == (3, 1, 4.5)
    assert helpful.mean == pytest.approx(8.5 / 3)
    assert (resolved.booleans, resolved.true_share, resolved.numbers) == (4, 0.75, 0)
    assert topics.categories == {"billing": 2, "other": 1}
    assert [score.name for score in tracker.get_metrics().scores] == [
        "feedback",
        "helpful",
        "resolved",
        "topic",
    ]
    assert tracker.get_metrics().conversations == 0, "scores alone are no conversation"


def test_scores_are_summed_up_by_day_and_by_release(config: MakeConfig) -> None:
    """Days in order, and the filters leave out the rest."""
    path = config().outbox_path
    for release, day in (("1.0", 0), ("1.1", 1), (None, 1)):
        settings = config(outbox_path=path, release=release)
        with Tracker(settings, destination=RecordingDestination) as tracker:
            with tracker.conversation(f"agent-{day}", session_id=f"s{day}") as c:
                when = LATER + timedelta(days=day)
                tracker.record_score("helpful", day, timestamp=when)
            assert tracker.get_scores(session_id="nobody's") == []
    with Tracker(config(outbox_path=path), destination=RecordingDestination) as tracker:
        by_day = [(s.key, s.name, s.count) for s in tracker.get_scores("day")]
        assert by_day == [("2026-11-02", "helpful", 1), ("2026-11-03", "helpful", 2)]
        releases = [(s.key, s.mean) for s in tracker.get_scores("release")]
        assert releases == [("1.0", 0), ("1.1", 1), (None, 1)]
        assert tracker.get_scores(agent_id="agent-0")[0].count == 1
        assert tracker.get_scores(session_id=c.session_id)[0].count == 2
        assert tracker.get_scores(since=LATER + timedelta(hours=1))[0].count == 2
        assert tracker.get_scores(until=LATER + timedelta(hours=1))[0].count == 1
        assert tracker.get_scores(release="1.1")[0].count == 1


def test_a_history_shows_scores_at_their_target(recorded: Recorded) -> None:
    """Those of the whole conversation are listed, feedback among them, with its comment."""
    tracker = recorded.tracker
    with tracker.conversation("a") as c:
        c.user("Hello!")
        answer = c.agent("Hi there!")
        tracker.record_score("helpful", 4, event_id=answer, comment="quite")
        c.feedback(comment="great")
    question, told = tracker.get_conversation_history(c.session_id)
    assert question.scores == ()
    (score,) = told.scores
    assert isinstance(score, Score)
    assert (score.name, score.value, score.comment) == ("helpful", 4, "quite")
    _, feedback = tracker.list_scores(c.session_id)
    assert (feedback.name, feedback.value, feedback.comment) == ("feedback", None, "great")
    assert tracker.get_conversation_history(c.session_id, False)[1].scores[0].comment is None


def test_commands_show_scores(config: MakeConfig) -> None:
    """In a table, as JSON, as CSV and in the transcript."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with tracker.conversation("a", session_id="s") as c:
            tracker.record_score("helpful", 4, event_id=c.agent("Hi there!"), comment="quite")
            c.score("resolved", True, source="judge")
        path = str(tracker.config.outbox_path)
    _, shown = shown_by("scores", "--outbox", path)
    assert shown.split("\n")[1].split() == ["helpful", "1", "4", "4", "4", "-", "-"]
    _, shown = shown_by("scores", "--by", "day", "--json", "--outbox", path)
    assert [(one["name"], one["true_share"]) for one in json.loads(shown)] == [
        ("helpful", None),
        ("resolved", 1.0),
    ]
    _, shown = shown_by("scores", "--csv", "--agent", "a", "--outbox", path)
    assert shown.startswith("name,count,numbers,mean,min,max,booleans,true_share,categories\n")
    assert shown_by("scores", "--agent", "b", "--outbox", path) == (0, "no such scores\n")
    _, shown = shown_by("conversation", "s", "--outbox", path)
    assert "    Hi there!\n    score helpful: 4, quite\n" in shown
    assert "\nscore resolved: true (judge)  " in shown
    _, shown = shown_by("conversation", "s", "--no-content", "--outbox", path)
    assert "quite" not in shown
    _, shown = shown_by("metrics", "--outbox", path)
    assert "score helpful" in shown


def shown_by(*arguments: str) -> tuple[int, str]:
    done = call(*arguments)
    return done.exit_code, done.stdout


def test_comments_and_categories_are_masked(recorded: Recorded) -> None:
    """As everything else."""
    key = "ghp_" + "a1B2c3" * 6
    recorded.tracker.record_score("note", f"key {key}", session_id="s", comment=f"uses {key}")
    assert key not in str(recorded.events)


def test_without_content_a_comment_is_its_size(config: MakeConfig) -> None:
    """The value is kept."""
    recorded = Recorded(config(capture_content=False))
    with recorded.tracker as tracker:
        tracker.record_score("topic", "billing", session_id="s", comment="secret")
        data = recorded.events[-1]["data"]
    assert (data["value"], data["comment"]) == ("billing", "[not captured: 6 characters]")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "", "value": 1}, "name: is empty"),
        ({"name": "x", "value": None}, "value: is None; give a number, True or False, or a cat"),
        ({"name": "x", "value": math.nan}, "value: is nan; give a finite number"),
        ({"name": "x", "value": [1]}, "value: is of type list; give a finite number"),
        ({"name": "x", "value": "x" * 257}, "value: has 257 characters"),
        ({"name": "x", "value": 1, "trace_id": "7"}, "trace_id: is '7'; give 32 hex digits"),
        ({"name": "x", "value": 1, "trace_id": TRACE, "event_id": "e"}, "trace_id: is given"),
        ({"name": "x", "value": 1, "session_id": None}, "session_id: is None, and no conv"),
        ({"name": "x", "value": 1, "source": ""}, "source: is empty"),
        ({"name": "x", "value": 1, "comment": 5}, "comment: is of type int"),
    ],
)
def test_what_is_no_score_is_refused(
    recorded: Recorded, arguments: dict[str, Any], problem: str
) -> None:
    """With the argument's name and what is allowed; nothing is stored."""
    with pytest.raises(ValidationError) as raised:
        recorded.tracker.record_score(**{"session_id": "s", **arguments})
    assert str(raised.value).startswith(problem)
    assert recorded.events == []
