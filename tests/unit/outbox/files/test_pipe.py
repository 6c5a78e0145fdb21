"""A pipe carries whole lines or nothing, never blocks, and touches no file that is not its own."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracker.outbox.files.pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pipe"


@pytest.fixture
def two(path: Path) -> Iterator[tuple[Pipe, Pipe]]:
    """Two processes' ends of one pipe, both open."""
    made = Pipe(path, like=path), Pipe(path, like=path)
    for each in made:
        assert each.send(b"open")
    made[0].take()
    yield made
    for each in made:
        each.close()


def test_lines_arrive_whole_and_once(two: tuple[Pipe, Pipe]) -> None:
    """The first who reads takes all lines, in the order in which they were sent."""
    one, other = two
    lines = [bytes([65 + n]) * 100 * n for n in range(1, 20)]
    assert all((one, other)[n % 2].send(line) for n, line in enumerate(lines))
    assert other.take() == lines
    assert one.take() == other.take() == []


def test_a_line_that_is_too_long_is_not_sent(two: tuple[Pipe, Pipe]) -> None:
    """The kernel would mix its pieces with other lines."""
    one, other = two
    longest = b"x" * (select.PIPE_BUF - 1)
    assert one.send(longest)
    assert not one.send(longest + b"x")
    assert other.take() == [longest]


def test_a_full_pipe_takes_no_more(two: tuple[Pipe, Pipe]) -> None:
    """Nobody waits for room; once it was emptied, there is some."""
    one, other = two
    sent = 0
    while one.send(b"x" * 1000):
        sent += 1
    assert len(other.take()) == sent > 10
    assert one.send(b"again")


def test_nothing_is_sent_where_no_pipe_can_be(path: Path) -> None:
    """A file, a folder or a link in its place stays as it is; a folder that is gone is no error."""
    path.write_text("mine")
    link = path.with_name("link")
    link.symlink_to(path)
    folder = path.with_name("folder")
    folder.mkdir()
    for place in (path, link, folder, path / "nowhere"):
        pipe = Pipe(place, like=place)
        assert not pipe.send(b"line")
        assert pipe.take() == []
        pipe.close()
    assert path.read_text() == "mine"
    assert link.is_symlink()
    assert folder.is_dir()


def test_it_is_for_this_user_alone(path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        pipe = Pipe(path, like=path)
        assert pipe.send(b"line")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        pipe.close()
    finally:
        os.umask(before)


def test_closing_removes_it_and_others_make_another(two: tuple[Pipe, Pipe], path: Path) -> None:
    """No pipe is left behind; what is sent by those who go on arrives."""
    one, other = two
    third = Pipe(path, like=path)
    one.close()
    assert not path.exists()
    assert other.send(b"line")
    assert third.send(b"another")
    assert third.take() == [b"line", b"another"]
    third.close()
    assert not path.exists()


def test_the_hosts_file_under_its_number_is_left_alone(path: Path) -> None:
    """A host that closes descriptors by number may have another file under the pipe's."""
    pipe = Pipe(path, like=path)
    assert pipe.send(b"line")
    numbers = [int(found.name) for found in Path("/dev/fd").iterdir()]
    (number,) = [each for each in numbers if _is_same(each, path)]
    mine = path.with_name("mine")
    mine.write_bytes(b"text\n")
    with mine.open("rb+") as file:
        os.dup2(file.fileno(), number)
    try:
        assert pipe.take() == []
        assert pipe.send(b"line")
        assert pipe.take() == [b"line"]
        pipe.close()
        assert os.fstat(number).st_ino == mine.stat().st_ino, "it is still open"
        assert mine.read_bytes() == b"text\n"
    finally:
        os.close(number)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except OSError:  # the descriptor that listed them
        return False
