"""`compress`: gzip that any server can read, with and without ISA-L."""

from __future__ import annotations

import gzip
import importlib
import random
import sys

import pytest

from tracker.delivery import compression


@pytest.mark.parametrize("with_isal", [True, False])
def test_what_is_compressed_is_one_gzip_member_of_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, with_isal: bool
) -> None:
    """For bodies of all sizes, and the header gives nothing of the machine away."""
    if with_isal:
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    module = importlib.reload(compression)
    try:
        for size in (0, 1, 1_000, 1_000_000):
            body = random.Random(size).randbytes(size // 2) + b"a" * (size - size // 2)  # noqa: S311
            made = module.compress(body)
            assert gzip.decompress(made) == body
            assert made[4:8] == b"\0\0\0\0"  # no time
            assert len(made) <= len(body) + 64 + size // 1000
    finally:
        monkeypatch.undo()
        importlib.reload(compression)
