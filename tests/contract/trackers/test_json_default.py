"""`APIConfig.json_default`: what JSON does not have, with the meaning of `json.dumps(default=)`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.settings import quick
from tracker import Tracker, ValidationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOMENT = datetime(2026, 1, 2, tzinfo=timezone.utc)
CALLS: dict[str, Callable[[Tracker, Any], object]] = {
    "track": lambda t, value: t.track("a.b", value),
    "start": lambda t, value: t.start_conversation("a", metadata=value),
    "message": lambda t, value: t.log_user_message("s", "x", metadata=value),
    "tool": lambda t, value: t.log_tool_call("s", "x", value, result=value),
    "end": lambda t, value: t.end_conversation("s", metadata=value),
    "failed": lambda t, value: t.record_failed_session("s", "x", metadata=value),
    "status": lambda t, value: t.operations.update_agent_status("a", "busy", metadata=value),
    "activity": lambda t, value: t.operations.log_activity("a", "x", details=value),
    "usage": lambda t, value: t.llm.record_usage("p", "m", 1, 1, metadata=value),
    "security": lambda t, value: t.security.report_event("x", "low", details=value),
    "audit": lambda t, value: t.compliance.record_audit("x", "y", details=value),
}


def default(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, set):
        return tuple(sorted(value))
    raise TypeError("private")


def logged(folder: Path, name: str, value: object, **settings: Any) -> dict[str, Any]:
    destination = RecordingDestination()
    with Tracker(quick(folder, **settings), destination=lambda: destination) as tracker:
        CALLS[name](tracker, value)
        tracker.flush()
    data: dict[str, Any] = destination.events[-1]["data"]
    return data


@pytest.mark.parametrize("name", CALLS)
def test_every_value_is_stored_as_json_dumps_would_write_it(tmp_path: Path, name: str) -> None:
    value = {"when": MOMENT, "deep": [{"price": Decimal("1.10")}, {3, 1, 2}], "plain": (1, None)}
    data = logged(tmp_path, name, value, json_default=default)
    expected = json.loads(json.dumps(value, default=default))
    assert expected in (data, *data.values())
    assert value["when"] is MOMENT


@pytest.mark.parametrize("name", CALLS)
def test_without_it_the_error_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="json_default"):
        logged(tmp_path, name, {"when": MOMENT})


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "returned", [object(), float("nan"), "\ud800", {1: 2}], ids=["object", "nan", "text", "key"]
)
def test_what_it_returns_is_checked_too(tmp_path: Path, name: str, returned: object) -> None:
    with pytest.raises(ValidationError):
        logged(tmp_path, name, {"when": MOMENT}, json_default=lambda _: returned)


def test_its_own_error_is_named_without_its_text(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match="complex, for which json_default raised TypeError"
    ) as e:
        logged(tmp_path, "track", {"when": 1j}, json_default=default)
    assert "private" not in str(e.value)


@pytest.mark.parametrize(
    "again", [lambda it: it, lambda it: [it, it], lambda it: {"a": it, "b": it}]
)
def test_one_that_returns_what_it_was_given_ends(
    tmp_path: Path, again: Callable[[Any], Any]
) -> None:
    """And it does so at once, where it returns it twice as well."""
    with pytest.raises(ValidationError, match="64 levels"):
        logged(tmp_path, "track", {"when": MOMENT}, json_default=again)


def test_tool_blocks_and_the_end_of_a_conversation_use_it_too(tmp_path: Path) -> None:
    destination = RecordingDestination()
    config = quick(tmp_path, json_default=default)
    with Tracker(config, destination=lambda: destination) as tracker:
        with tracker.conversation("a") as c:
            with c.tool("search", {"since": MOMENT}) as call:
                call.result = {Decimal(1)}
            c.end(metadata={"at": MOMENT})
        tracker.flush()
    _, tool, end = (event["data"] for event in destination.events)
    assert tool["arguments"] == {"since": "2026-01-02T00:00:00+00:00"}
    assert tool["result"] == [{"decimal": "1"}]
    assert end["metadata"] == {"at": "2026-01-02T00:00:00+00:00"}
