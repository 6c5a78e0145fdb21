"""A file appears complete or not at all."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path


def test_it_appears_when_the_block_ends_and_only_this_user_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    with whole_file(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path, replace=True) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "not supported")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "export.jsonl"
    with pytest.raises(FileExistsError), whole_file(path):
        path.write_bytes(b"another's")
    assert path.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with whole_file(path) as file:
        file.write(b"ours")
    assert path.read_bytes() == b"ours"
