"""Virtual environments for packages that the tests' own one does not have.

Instrumentors and the libraries that they instrument require versions that exclude one another. Each
list gets an environment, made on first use and kept in the folder that ``TRACKER_ENVIRONMENTS``
names, by default in the system's for temporary files.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SECONDS = 900
_OWN = re.compile(r"^(?:dependencies|otel) = \[.*?^\]", re.MULTILINE | re.DOTALL)


@functools.cache
def python_with(*requirements: str) -> Path:
    """Return the interpreter of an environment with the SDK's requirements, ``[otel]``, and more.

    Skips the test if they cannot be installed.
    """
    said = "\n".join(
        [sys.version, *_OWN.findall((ROOT / "pyproject.toml").read_text()), *requirements]
    )
    folder = _folder() / hashlib.sha256(said.encode()).hexdigest()[:16]
    with (_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, requirements)
            (folder / "whole").touch()
    return folder / "bin" / "python"


def start(
    python: Path, program: Path, *arguments: object, **environment: str
) -> subprocess.Popen[str]:
    """Start a program with this checkout; stdout and stderr come through pipes."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return subprocess.Popen(
        [python, program, *map(str, arguments)],
        env={**kept, "PYTHONPATH": str(ROOT), "PATH": os.defpath, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(python: Path, program: Path, *arguments: object, **environment: str) -> str:
    """Run a program with this checkout, and return what it printed."""
    with start(python, program, *arguments, **environment) as process:
        try:
            printed, trouble = process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0, trouble
    return printed


def _folder() -> Path:
    default = Path(tempfile.gettempdir()) / f"tracker-environments-{os.getuid()}"
    folder = Path(os.environ.get("TRACKER_ENVIRONMENTS", default))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _make(folder: Path, requirements: tuple[str, ...]) -> None:
    packages = [f"{ROOT}[otel]", *requirements]
    uv = shutil.which("uv")
    if uv is not None:
        _install([uv, "venv", "--quiet", "--python", sys.executable, folder])
        _install(
            [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages]
        )
        return
    _install([sys.executable, "-m", "venv", folder])
    _install([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages])


def _install(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} takes too long")
    if done.returncode:
        pytest.skip(f"cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
