"""The lines that a full run of the fault suite prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print a line of figures; to stderr, which pytest's parallel workers share with the run."""
    with capsys.disabled():
        print(f"\nfault: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the figures
