"""No command ends in a traceback, whatever terminal, user, path or interruption it meets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import each_command
from tests.support.conversations import ROOT

pytestmark = pytest.mark.slow

CODES = (0, 1, 2)
INTERRUPTED = -signal.SIGINT
"""Once a command has done its work, SIGINT ends the process at once."""


@pytest.mark.parametrize("condition", each_command.PREPARE)
def test_every_command_ends_with_a_line_and_a_code(condition: str) -> None:
    """Of `tracker-sync` and `tracker-collector`, but for the demonstration."""
    if each_command.PREPARE[condition] is each_command.another_user and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if condition == "full disk" and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.each_command", condition, folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    ended: dict[str, tuple[int, str, str]] = json.loads(done.stdout)
    interrupted = condition.startswith("interrupted")
    silent = condition in ("no stdout", "closed pipe")
    for name, (code, stdout, stderr) in ended.items():
        assert code in CODES or (interrupted and code == INTERRUPTED), (name, code, stderr)
        assert "Traceback" not in stderr, (name, stderr)
        assert "Exception ignored" not in stderr, (name, stderr)
        if code > 0 and not silent:
            assert (stdout + stderr).strip(), (name, code)
