"""README's quick start, as somebody new walks it: an empty folder, and nothing but README."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.collector import free_port
from tests.support.conversations import ROOT
from tests.support.pages import IS_CHECKOUT, Page, blocks_of, lines_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not IS_CHECKOUT, reason="installs from a checkout"),
]
QUICK_START = Page(ROOT / "README.md").section("Quick start")


class Terminal:
    """A shell in the newcomer's folder: it types lines and reads what they print."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.typed: list[str] = []

    def type(self, line: str) -> str:
        """Return what a line prints, after all that was typed in this terminal before."""
        script = "\n".join(["set -e", *self.typed, line])
        done = subprocess.run(
            ["sh", "-c", script],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if line.startswith((". ", "export ")):
            self.typed.append(line)  # what the shell itself keeps
        return done.stdout


@pytest.fixture
def terminals(tmp_path: Path) -> tuple[Terminal, Terminal]:
    """Two terminals of a user whose home has the clone and whose path has little but Python."""
    programs, home, project = (tmp_path / name for name in ("bin", "home", "project"))
    for folder in (programs, home, project):
        folder.mkdir(exist_ok=True)
    copy_checkout(home / "tracker")
    python = programs / "python3"
    python.write_text(f"#!/bin/sh\nexec '{base_python()}' \"$@\"\n")
    python.chmod(0o755)
    if shutil.which("sqlite3", path="/usr/bin:/bin") is None:
        pytest.skip("sqlite3 is not installed")
    kept = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    environment = {**kept, "HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin"}
    return Terminal(project, dict(environment)), Terminal(project, dict(environment))


def copy_checkout(clone: Path) -> None:
    """Copy what a clone has, so that building it leaves nothing in the real one."""
    clone.mkdir()
    for name in ("tracker", "migrations"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)


def base_python() -> str:
    """Return the Python that this environment was made with."""
    version = f"python{sysconfig.get_python_version()}"
    return str(Path(sys.base_prefix) / "bin" / version)


def test_from_an_empty_folder_to_the_first_event(terminals: tuple[Terminal, Terminal]) -> None:
    """Each block works as it stands; the key alone is what another command had printed."""
    first, second = terminals
    install, environment, program, look = (block.text for block in blocks_of(QUICK_START))
    port, api_key = free_port(), ""
    for terminal in terminals:
        terminal.environment["SDK_BASE_URL"] = f"http://127.0.0.1:{port}"  # 8080 may be in use
    *before, serve = lines_of(install)
    assert serve == "tracker-collector serve"
    for line in before:
        printed = first.type(line)
        if line.startswith("tracker-collector keys create"):
            [api_key] = re.findall(r"\btrk_[\w-]+", printed)
    with collector(first, f"{serve} --port {port}"):
        for line in lines_of(environment):
            second.type(line.replace("trk_...", api_key))
        (second.folder / "hello.py").write_text(program, "utf-8")
        shown = {line: second.type(line) for line in lines_of(look)}
    [rows] = [text for line, text in shown.items() if line.startswith("sqlite3")]
    found = [row.split("|") for row in rows.splitlines()]
    assert [row[2] for row in found] == [
        "conversation.started",
        "message.logged",
        "message.logged",
        "conversation.ended",
    ]
    assert json.loads(found[1][3])["content"] == "Hello!"
    assert "Hi there!" in shown["tracker-sync conversation --last"]
    installed = next((first.folder / ".venv").glob("lib*/python*/site-packages/tracker"))
    assert not list(installed.rglob("*.md")), "pages are for those who have the checkout"


class collector:  # noqa: N801 - a context manager
    """The collector in its own terminal, from the line that starts it to Ctrl-C."""

    def __init__(self, terminal: Terminal, line: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", "\n".join([*terminal.typed, f"exec {line}"])],
            stderr=subprocess.PIPE,
            text=True,
            cwd=terminal.folder,
            env=terminal.environment,
        )

    def __enter__(self) -> None:
        assert self._process.stderr is not None
        assert "listening on" in self._process.stderr.readline()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.stderr is not None
        with self._process.stderr:
            self._process.stderr.read()
        self._process.wait(timeout=30)
