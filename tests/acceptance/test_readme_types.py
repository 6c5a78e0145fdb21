"""The README's Python passes `mypy --strict`: who copies it has nothing to correct."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.slow  # mypy reads all that the README imports
def test_every_block_is_typed(tmp_path: Path) -> None:
    """Read from top to bottom, as one program; only functions without annotations are forgiven."""
    program = tmp_path / "program.py"
    program.write_text("\n".join(BLOCKS), "utf-8")
    forgiven = ("no-untyped-def", "no-untyped-call", "untyped-decorator")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
            *(f"--disable-error-code={code}" for code in forgiven),
            *("--cache-dir", str(tmp_path / "cache"), str(program)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
