"""The typed forms of awaited calls are those of the calls themselves."""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any

import pytest

from tracker import AgentPerformanceTracker, AsyncAgentPerformanceTracker
from tracker.aio import forms

FORMS = {
    "log_message": forms.LogMessage,
    "log_user_message": forms.LogUserMessage,
    "log_agent_message": forms.LogAgentMessage,
    "log_system_message": forms.LogSystemMessage,
    "log_tool_call": forms.LogToolCall,
}


def overloads(owner: type, name: str) -> list[inspect.Signature]:
    """Return what was declared with `typing.overload` as `owner.name`."""

    def stand_in() -> None: ...

    stand_in.__module__, stand_in.__qualname__ = owner.__module__, f"{owner.__name__}.{name}"
    declared: Any = getattr(typing, "get_overloads")  # noqa: B009 - mypy checks for 3.10, without it
    return [inspect.signature(form) for form in declared(stand_in)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not keep overloads")
def test_the_forms_are_those_of_the_tracker() -> None:
    """What mypy allows with await is what it allows without: name by name, type by type."""
    plain = {name: overloads(AgentPerformanceTracker, name) for name in public()}
    awaited = {name: overloads(form, "__call__") for name, form in FORMS.items()}
    assert awaited == {name: plain[name] for name in plain if plain[name] and name != "observe"}
    assert len(plain["observe"]) == len(overloads(AsyncAgentPerformanceTracker, "observe")) == 2


def public() -> list[str]:
    return [name for name in vars(AgentPerformanceTracker) if not name.startswith("_")]


@pytest.mark.parametrize("name", FORMS)
def test_help_shows_the_call_itself(name: str) -> None:
    """Signature and docstring at run time are those of the call without await."""
    awaited = getattr(AsyncAgentPerformanceTracker, name)
    assert inspect.iscoroutinefunction(awaited)
    plain = getattr(AgentPerformanceTracker, name)
    assert inspect.signature(awaited) == inspect.signature(plain)
    assert inspect.getdoc(awaited) == inspect.getdoc(plain)
