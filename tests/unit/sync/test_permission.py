"""`Permission`: whatever the application's function does, the reason for a no is known."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tracker.sync import permission
from tracker.sync.permission import Permission

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.hold import Hold


def unexpected(hold: Hold) -> None:
    raise AssertionError(hold.because)


def ask(may_upload: Callable[[], Any] | None) -> Hold | None:
    """Return what a function leads to; it must not be slow."""
    return Permission(may_upload, unexpected).refusal()


def test_a_yes_and_no_function_at_all_let_pass() -> None:
    """And neither leaves a thread behind."""
    before = threading.active_count()
    assert ask(None) is ask(lambda: True) is None
    assert threading.active_count() == before


def test_a_no_is_no_trouble() -> None:
    """It is asked again half a minute later, or when somebody flushes."""
    hold = ask(lambda: False)
    assert hold is not None
    assert hold.because == "may_upload said no; it is asked again every 30 s"
    assert (hold.pause.seconds, hold.pause.skippable, hold.is_trouble) == (30.0, True, False)


async def later() -> bool:
    return True


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no repr")


def leave() -> bool:
    raise SystemExit("bye")


@pytest.mark.parametrize(
    ("may_upload", "said"),
    [
        (lambda: 1 / 0, "may_upload raised ZeroDivisionError: division by zero"),
        (leave, "may_upload raised SystemExit: bye"),
        (lambda: 1, "may_upload returned a value of type int, neither True nor False"),
        (lambda: None, "may_upload returned None, neither True nor False"),
        (Odd, "may_upload returned a value of type Odd, neither True nor False"),
        (later, "may_upload returned a value of type coroutine, neither True nor False"),
    ],
)
def test_a_fault_is_a_no_that_is_said(
    may_upload: Callable[[], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread goes on; the log says it once, until the function works again."""
    answers: list[Callable[[], Any]] = [may_upload] * 3
    asked = Permission(lambda: answers.pop()(), unexpected)
    holds = [asked.refusal() for _ in range(3)]
    assert all(hold is not None and hold.is_trouble and said in hold.because for hold in holds)
    assert [record.getMessage() for record in caplog.records] == [
        f"{said}: nothing is uploaded until it returns True"
    ]
    answers += [may_upload, lambda: True]
    assert asked.refusal() is None
    assert asked.refusal() is not None
    assert len(caplog.records) == 2


def test_a_function_that_does_not_return_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it runs, for the thread itself can say nothing any more."""
    monkeypatch.setattr(permission, "PATIENCE_SECONDS", 0.01)
    reported: list[Hold] = []
    called = threading.Event()

    def report(hold: Hold) -> None:
        reported.append(hold)
        called.set()

    assert Permission(lambda: called.wait(30), report).refusal() is None
    [hold] = reported
    assert hold.is_trouble
    assert hold.because in caplog.text
    assert hold.because.startswith("may_upload has not returned for ")


def test_asking_costs_little() -> None:
    """A request takes milliseconds at least; the question less than one."""
    asked = Permission(lambda: True, unexpected)
    start = time.perf_counter()
    for _ in range(100):
        assert asked.refusal() is None
    assert time.perf_counter() - start < 1.0
