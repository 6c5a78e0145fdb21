"""A typed application is helped by its type checker, whichever of the two it uses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None,
    reason="pyright is not installed: pip install -e '.[pyright]', which brings 200 MB of Node.js",
)
def test_the_typed_program_passes_pyright_too(tmp_path: Path) -> None:
    """In its strict mode, in which an ignore that is not needed is an error. mypy is run by CI."""
    (tmp_path / "usage.py").write_text((ROOT / "tests" / "typing" / "usage.py").read_text("utf-8"))
    settings = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": True}
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({**settings, "extraPaths": [str(ROOT)]}), "utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
