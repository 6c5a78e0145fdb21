"""Scores and feedback: what users, reviewers and programs think of conversations and events."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Literal

from tracker import context, queries, validation
from tracker.errors import OutboxError, ValidationError
from tracker.events import FEEDBACK_RECORDED, SCORE_RECORDED
from tracker.trackers.reading import ReadingTracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tracker.queries.scores import Score, ScoreSummary, Target

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


class ScoringTracker(ReadingTracker):
    """Logs and reads scores."""

    def record_score(
        self,
        name: str,
        value: float | bool | str,
        *,
        session_id: str | None = None,
        event_id: str | None = None,
        trace_id: str | None = None,
        comment: str | None = None,
        source: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a score of a conversation, an event or a trace; return the event's id.

        Args:
            name: What it says, such as ``"helpful"``: scores of one name are summed up.
            value: Any finite number, True or False, or a category such as ``"off topic"``, of at
                most 256 characters.
            session_id: The conversation; by default that of the event, or the current one.
            event_id: The event that is judged, such as an answer, as its call returned it.
            trace_id: The trace that is judged, 32 hex digits, in place of an event.
            comment: A comment as text.
            source: The source of the score, such as ``"user"`` or ``"judge"``.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.

        Raises:
            ValidationError: if an argument is not allowed, or nothing is named that is judged and
                no conversation is current.
        """
        data = {
            "name": validation.check_id("name", name),
            "value": _check_value(value),
            "target_event_id": validation.check_optional_id("event_id", event_id),
            "target_trace_id": validation.optional(_check_trace_id, "trace_id", trace_id),
            "comment": validation.optional(validation.check_text, "comment", comment),
            "source": validation.check_optional_id("source", source),
        }
        if event_id is not None and trace_id is not None:
            raise ValidationError("trace_id", "is given besides event_id; give one of them")
        session_id = validation.check_optional_id("session_id", session_id)
        if session_id is event_id is trace_id is None:
            session_id = context.resolve(None)
        self._check_open()
        judged = None
        if event_id is not None and session_id is None:
            judged = self._judged(event_id)
        return self._record_about(
            SCORE_RECORDED,
            data,
            session_id=judged.session_id if judged else session_id,
            agent_id=judged.agent_id if judged else None,
            user_id=judged.user_id if judged else None,
            timestamp=timestamp,
        )

    def record_feedback(
        self,
        session_id: str | None = None,
        *,
        score: float | None = None,
        comment: str | None = None,
        source: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log feedback on a conversation, which may have ended; return the event's id.

        A score, a comment, or both have to be given. Reads show it as the score ``"feedback"``.

        Args:
            session_id: The conversation; None means the current one.
            score: Any finite number, on a scale of your choice.
            comment: A comment as text.
            source: The source of the feedback, such as ``"user"`` or ``"reviewer"``.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        session_id = context.resolve(session_id)
        if score is None and comment is None:
            raise ValidationError("score", "is missing, and so is comment; give one or both")
        data = {
            "score": validation.optional(validation.check_number, "score", score),
            "comment": validation.optional(validation.check_text, "comment", comment),
            "source": validation.check_optional_id("source", source),
        }
        self._check_open()
        session = self._client.sessions.get(session_id)
        return self._record(
            FEEDBACK_RECORDED,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
            timestamp=timestamp,
        )

    def get_scores(
        self,
        by: Literal["name", "day", "release"] = "name",
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[ScoreSummary]:
        """Return the scores of each name, in all, by day or by release.

        For numbers there are mean, minimum and maximum, for True and False the share of True, for
        categories their counts. Feedback is the score ``"feedback"``; without a number it does not
        count.

        Args:
            by: ``"name"`` (default), ``"day"`` for UTC days, or ``"release"``.
            agent_id: Only scores of this agent.
            session_id: Only scores of this conversation.
            since: Only scores recorded at this time or later: an aware datetime, or Unix
                milliseconds.
            until: Only scores recorded before this time.
            environment: Only scores recorded in this environment.
            release: Only scores recorded by this release.
            tags: Only scores that have each of these tags.
        """
        by_ = validation.check_choice("by", by, queries.scores.BY)
        wanted = queries.filters.checked(
            agent_id=agent_id,
            session_id=session_id,
            since=validation.check_since("since", since),
            until=validation.check_since("until", until),
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        return self._client.read(partial(queries.scores.get_scores, by=by_, wanted=wanted))

    def list_scores(self, session_id: str) -> tuple[Score, ...]:
        """Return the scores of a conversation and of its events, in the order of recording.

        Args:
            session_id: The conversation. An unknown one has none.
        """
        session_id = validation.check_id("session_id", session_id)
        self._check_open()
        return self._client.read(partial(queries.scores.list_scores, session_id=session_id))

    def _judged(self, event_id: str) -> Target | None:
        """Return whom an event concerns; None if it is not here, or nothing can be read now."""
        try:
            return self._client.read(partial(queries.scores.target, event_id=event_id))
        except OutboxError:
            if self.config.on_error == "raise":
                raise
            return None


def _check_value(value: object) -> float | bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return validation.check_id("value", value)
    if value is None:
        raise ValidationError("value", "is None; give a number, True or False, or a category")
    return validation.check_number("value", value)


def _check_trace_id(argument: str, value: object) -> str:
    text = validation.check_text(argument, value)
    if not _TRACE_ID.fullmatch(text) or not int(text, 16):
        raise ValidationError(argument, f"is {text!r:.80}; give 32 hex digits, not all of them 0")
    return text
