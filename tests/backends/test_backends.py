"""What receivers do with what they are sent: lose it, refuse it, or store it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from tests.backends import killed
from tests.backends.conftest import configured
from tests.support.backends import MLflow, Phoenix
from tests.support.conversations import needs_data
from tests.support.traced import traced
from tests.support.uploads import account_of, dead_letters, wait_until
from tracker import Tracker
from tracker.otel import names

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.backends, pytest.mark.timeout(1_800), needs_data]

CONVERSATIONS = 20


def test_what_phoenix_lost_after_it_had_acknowledged_it_can_be_sent_again(
    tmp_path: Path, client: dict[str, str]
) -> None:
    """It answers before it stores; `resend` brings back what a kill has cost."""
    with Phoenix(tmp_path / "store") as phoenix:
        environment = {**client, **phoenix.environment}
        killed.replay(environment, tmp_path / "notes", CONVERSATIONS)
        killed.upload(environment)
        phoenix.kill()
        phoenix.start()
        killed.upload(environment, again=True)
        ids = {event["event_id"] for event in killed.stored_events(environment)}
        wait_until(
            lambda: {span.about("tracker.event.id") for span in phoenix.spans()} >= ids,
            "all events are stored",
            60,
        )
        spans = phoenix.spans()
        assert len({span.span_id for span in spans}) == len(spans)


def test_what_phoenix_drops_with_a_span_that_it_cannot_read_can_be_sent_by_itself(
    tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the rest of the request up, after it has acknowledged all of it."""
    with Phoenix(tmp_path / "store") as phoenix:
        environment = {**client, **phoenix.environment}
        with Tracker(configured(environment, monkeypatch)) as tracker, traced(tracker) as otel:
            for kind in ("TOOL", " ", "LLM"):
                otel.start_span("step", attributes={names.KIND: kind}).end()
            assert tracker.flush(killed.FLUSH_SECONDS).pending == 0
        killed.upload({**environment, "SDK_BATCH_MAX_EVENTS": "1"}, again=True)
        wait_until(lambda: len(phoenix.spans()) == 2, "the others are stored", 60)
        assert {span.kind for span in phoenix.spans()} == {"TOOL", "LLM"}


def test_spans_that_mlflow_cannot_store_hold_up_no_other(
    tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 422 to a kind that is a list, for ever; the others are stored as they were."""
    with MLflow(tmp_path / "store") as mlflow:
        settings = configured({**client, **mlflow.environment}, monkeypatch)
        with Tracker(settings) as tracker, traced(tracker) as otel:
            for number in range(1, 31):
                given: dict[str, Any] = {"number": number, "text": "ü", "real": 0.5}
                if number in (15, 16):
                    given[names.KIND] = ["LLM"]
                otel.start_span("step", attributes=given).end()
            tracker.flush(killed.FLUSH_SECONDS)
        account = account_of(settings)
        assert (account.delivered, account.dead, account.pending) == (28, 2, 0)
        assert [code for _, code, _ in dead_letters(settings)] == ["http_422", "http_422"]
        spans = mlflow.spans()
        assert sorted(span.about("number") for span in spans) == [
            number for number in range(1, 31) if number not in (15, 16)
        ]
        assert {(span.about("text"), span.about("real")) for span in spans} == {("ü", 0.5)}


def test_a_span_of_opentelemetry_is_in_mlflow_as_it_was(
    tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In by the SDK's processor, out over OTLP: the same ids, times and attributes."""
    given: dict[str, Any] = {"text": "ü", "number": 7, "real": 0.5, "flag": True, "list": [1, 2]}
    with MLflow(tmp_path / "store") as mlflow:
        settings = configured({**client, **mlflow.environment}, monkeypatch)
        with Tracker(settings) as tracker, traced(tracker, conversation=False) as otel:
            with otel.start_as_current_span("step", attributes=given) as span:
                pass
            assert tracker.flush(killed.FLUSH_SECONDS).delivered == 1
        assert isinstance(span, ReadableSpan)
        [stored] = mlflow.spans()
        assert {name: stored.about(name) for name in given} == given
        [times] = mlflow.query(
            "SELECT start_time_unix_nano, end_time_unix_nano FROM spans WHERE name = 'step'"
        )
        assert times == (span.start_time, span.end_time)
        context = span.get_span_context()
        assert context is not None
        assert f"{context.span_id:016x}" in stored.span_id
