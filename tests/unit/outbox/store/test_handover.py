"""Offers are taken by those who can commit them for another, and by nobody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tracker.events import make_event
from tracker.outbox.files import paths, pipe
from tracker.outbox.files.file_lock import PATIENCE_SECONDS
from tracker.outbox.files.pipe import Pipe
from tracker.outbox.store.handover import Handover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not pipe.SUFFICES, reason="a pipe is too small for an event here")

FILE = (1, 2)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite3"


@pytest.fixture
def wire(outbox: Path) -> Iterator[Pipe]:
    """The pipe itself, to read and change what is offered."""
    made = Pipe(paths.handover(outbox), like=outbox)
    assert made.send(b"open")
    made.take()
    yield made
    made.close()


class Make(Protocol):
    def __call__(self, file: tuple[int, int] = FILE, key: bytes | None = None) -> Handover: ...


@pytest.fixture
def handover(outbox: Path) -> Iterator[Make]:
    """Makes what a process has, with its pipe open already."""
    all_made = []

    def make(file: tuple[int, int] = FILE, key: bytes | None = None) -> Handover:
        made = Handover(outbox, key)
        made.use_file(file)
        made.offer(note("opens the pipe"))
        made.take()
        all_made.append(made)
        return made

    yield make
    for each in all_made:
        each.close()


def note(n: object) -> Any:
    return make_event("test.noted", {"n": n}, user_id="u")


def test_an_event_arrives_as_it_was_offered(handover: Make) -> None:
    """Whatever it contains."""
    events = [note(n) for n in ("x", 'é\n"\\', "字" * 500, None, 1.5)]
    one, other = handover(), handover()
    for event in events:
        one.offer(event)
    taken = other.take()
    assert taken == {event.event_id: event for event in events}
    assert list(taken) == [event.event_id for event in events]
    assert one.take() == {}


def test_an_event_too_long_for_the_pipe_is_not_offered(handover: Make) -> None:
    """Its call waits, as all did before."""
    one, other = handover(), handover()
    one.offer(note("x" * 5_000))
    assert other.take() == {}


@pytest.mark.parametrize(("file", "key"), [((1, 3), None), (FILE, b"k" * 32)])
def test_offers_for_another_file_or_key_are_not_taken(
    handover: Make, file: tuple[int, int], key: bytes | None
) -> None:
    """Another process may have another file open at the path, or sign the chain differently."""
    one, other = handover(), handover(file, key)
    one.offer(note("x"))
    assert other.take() == {}


@pytest.mark.parametrize("seconds", [PATIENCE_SECONDS + 1, -1])
def test_an_offer_that_nobody_waits_for_any_more_is_not_taken(
    handover: Make, wire: Pipe, seconds: float
) -> None:
    """Whoever offered it has given up or died; or it is from a clock that is not this one."""
    one = handover()
    one.offer(note("x"))
    (line,) = wire.take()
    mark, at, *fields = json.loads(line)
    wire.send(line)
    wire.send(json.dumps([mark, at - seconds, *fields]).encode())
    assert len(one.take()) == 1
    wire.send(json.dumps([mark, at - seconds, *fields]).encode())
    assert one.take() == {}


def test_nonsense_is_not_taken(handover: Make, wire: Pipe) -> None:
    """Nor does it keep others from being taken."""
    one = handover()
    one.offer(note("x"))
    (line,) = wire.take()
    whole = json.loads(line)
    for number in range(len(whole)):
        wire.send(json.dumps([*whole[:number], {"a": [1]}, *whole[number + 1 :]]).encode())
        wire.send(json.dumps([*whole[:number], *whole[number + 1 :]]).encode())
    for text in (b"", b"{}", b"[]", b"7", b"null", b"[" * 4_000, b"\xff\xfe", line[:-9], b'"x"'):
        wire.send(text)
    wire.send(line)
    assert list(one.take()) == [whole[2]]
