"""The public names: all there, all documented, none by accident."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

import pytest

import tracker
from tracker import errors

CLASSES = [name for name in tracker.__all__ if inspect.isclass(getattr(tracker, name))]


def public_members(cls: type) -> dict[str, Any]:
    return {
        name: member
        for owner in reversed(cls.__mro__)
        if owner.__module__.startswith("tracker")
        for name, member in vars(owner).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


def test_all_is_what_is_exported() -> None:
    """Every name in __all__ exists, and nothing else that looks public is there by chance."""
    exported = {
        name
        for name, value in vars(tracker).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert exported - {"annotations"} == set(tracker.__all__) - {"__version__"}
    assert sorted(tracker.__all__) == list(tracker.__all__)


def test_every_error_is_exported() -> None:
    """Whatever the package raises on purpose can be caught by a public name."""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.TrackerError):
            assert getattr(tracker, name) is value


def test_the_drawing_of_the_error_tree_is_right() -> None:
    """The docstring of `tracker.errors` shows each error under its parent."""
    drawn: list[tuple[int, str]] = [
        (len(line) - len(line.lstrip(" │├└─")), match[1])
        for line in (errors.__doc__ or "").splitlines()
        if (match := re.match(r"[ │├└─]*(\w+Error)\b", line)) and line.startswith("    ")
    ]
    parents: list[tuple[int, str]] = []
    for indent, name in drawn:
        while parents and parents[-1][0] >= indent:
            parents.pop()
        if parents:
            assert getattr(errors, parents[-1][1]) in getattr(errors, name).__bases__
        parents.append((indent, name))
    assert {name for _, name in drawn} == {
        name for name, value in vars(errors).items() if inspect.isclass(value)
    }


def test_the_version_is_one_that_pip_understands() -> None:
    """Three numbers, with a suffix perhaps."""
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]|rc|\.dev|\.post)?\d*", tracker.__version__)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_and_method_is_documented(name: str) -> None:
    """`help()` has something to say about each."""
    cls = getattr(tracker, name)
    assert inspect.getdoc(cls)
    undocumented = [
        member for member, value in public_members(cls).items() if not inspect.getdoc(value)
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_and_argument_is_described(name: str) -> None:
    """A dataclass names its fields under Attributes, a method with Args names each of them."""
    cls = getattr(tracker, name)
    doc = inspect.getdoc(cls) or ""
    for field in getattr(cls, "__dataclass_fields__", {}):
        assert re.search(rf"^    {field}: ", doc, re.MULTILINE), field
    for member, value in public_members(cls).items():
        text = inspect.getdoc(value) or ""
        if "Args:" in text:
            for parameter in list(inspect.signature(value).parameters)[1:]:
                assert re.search(rf"^    {parameter}: ", text, re.MULTILINE), (member, parameter)


@pytest.mark.parametrize("name", sorted(public_members(tracker.AgentPerformanceTracker)))
def test_an_awaited_call_shows_the_signature_and_help_of_the_plain_one(name: str) -> None:
    """`help` of an async tracker says the same; what is not awaited says its own."""
    plain = getattr(tracker.AgentPerformanceTracker, name)
    awaited = getattr(tracker.AsyncAgentPerformanceTracker, name)
    not_awaited = ("context", "conversation", "extract", "inject", "observe", "span")
    if name in ("close", "config", *not_awaited):
        return
    assert inspect.iscoroutinefunction(awaited)
    assert inspect.signature(awaited) == inspect.signature(plain)
    assert inspect.getdoc(awaited) == inspect.getdoc(plain)
