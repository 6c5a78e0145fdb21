"""The README is true: every command and code block in it runs."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT
from tracker import APIConfig, FlushResult, client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import CollectorProcess

README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
LINES = [
    line.split("  #")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
]
DEVELOPMENT = ("ruff", "mypy", "pytest")


@pytest.fixture
def shell(
    collector: CollectorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A new user's shell: the commands on the path, a collector that runs, a key for it."""
    monkeypatch.setenv("SDK_API_KEY", collector.api_key)
    monkeypatch.setenv("SDK_CLIENT_ID", collector.client_id)
    monkeypatch.setenv("SDK_BASE_URL", collector.url)
    monkeypatch.setenv("COLLECTOR_DATABASE_URL", str(tmp_path / "other.sqlite3"))
    commands = tmp_path / "bin"
    commands.mkdir()
    (tmp_path / "home").mkdir()
    if shutil.which("sqlite3") is None:
        stand_in = commands / "sqlite3"
        stand_in.write_text(
            f"#!{sys.executable}\n"
            "import sqlite3, sys\n"
            "for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(*row, sep='|')\n"
        )
        stand_in.chmod(0o755)
    monkeypatch.setenv(
        "PATH",
        os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
    )
    monkeypatch.chdir(tmp_path)
    yield
    for opened in list(client._registry.values()):
        opened.shut(5)
    client._registry.clear()
    logging.getLogger("agent").handlers.clear()


def run(line: str) -> str:
    done = subprocess.run(
        ["sh", "-c", line], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def log_something() -> None:
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), NAMESPACE)  # noqa: S102 - that is the test


NAMESPACE: dict[str, object] = {}


@pytest.mark.usefixtures("shell")
def test_python_blocks(collector: CollectorProcess) -> None:
    """The Python blocks run one after the other, as a reader would run them."""
    log_something()
    types = [event["type"] for event in collector.events()]
    assert types[:4] == [
        "conversation.started",
        "message.logged",
        "message.logged",
        "conversation.ended",
    ]
    assert types[4:] == [
        "conversation.started",
        "message.logged",
        "tool.called",
        "conversation.failed",
        "conversation.resumed",
        "conversation.ended",
        "feedback.recorded",
        "conversation.started",
        "message.logged",
        "function.observed",
        "tool.called",
        "message.logged",
        "conversation.ended",
        "log.recorded",
        "agent.registered",
        "agent.status_changed",
        "llm.used",
        "security.reported",
        "cart.abandoned",
        "compliance.audited",
        "compliance.acknowledged",
        "compliance.erased",
        "conversation.started",
        "message.logged",
        "tool.called",
        "message.logged",
        "conversation.ended",
        "agent.heartbeat",
        "agent.heartbeat",
        "agent.heartbeat",
    ]
    result = NAMESPACE["result"]
    assert isinstance(result, FlushResult)
    assert (result.pending, result.dead) == (0, 0)


@pytest.mark.usefixtures("shell")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_shell_blocks(collector: CollectorProcess) -> None:
    """Every command of the shell blocks runs and ends well, in the README's order."""
    log_something()
    ran = 0
    for line in LINES:
        if line.startswith("python3 -m venv") or line.split()[0] in DEVELOPMENT:
            continue  # .ci/run runs these: see below
        if line.startswith("export "):
            assert line.split()[1].split("=")[0] in os.environ
        elif line == "tracker-collector serve":
            serve(f"{line} --port 0")
        elif line.startswith("curl"):
            line = line.replace("http://127.0.0.1:8080", collector.url)
            if shutil.which("curl"):
                wanted = '"missing":[]' if "outboxes" in line else '"next":null'
                assert wanted in run(line).replace(" ", "")
        else:
            run(line)
            ran += 1
    assert ran >= 25


def serve(line: str) -> None:
    """Start a collector by its command line and end it as Ctrl-C would."""
    process = subprocess.Popen(["sh", "-c", f"exec {line}"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert "listening on http://127.0.0.1:" in process.stderr.readline()
        process.terminate()
        process.stderr.read()
    assert process.wait(timeout=30) == 0


@pytest.mark.usefixtures("shell")
def test_the_queries_find_something() -> None:
    """The queries on filled views give rows, so that their columns mean what README says."""
    log_something()
    queries = [line for line in LINES if line.startswith("sqlite3")]
    answers = {line: run(line) for line in queries}
    assert len(queries) == 7
    empty = [line for line, answer in answers.items() if not answer.strip()]
    assert [re.findall(r"FROM (\w+)", line)[0] for line in empty] == [
        "pending",
        "dead_letters",
    ]


def test_ci_runs_what_a_test_cannot() -> None:
    """The installing commands and the developers' checks are run by .ci/run, word for word."""
    for line in LINES:
        if line.startswith("python3 -m venv"):
            assert line in CI
        elif line.split()[0] in DEVELOPMENT:
            assert f".venv/bin/{line}" in CI


def test_the_configuration_table_is_complete() -> None:
    """The table names every field of APIConfig, its variable, and its default."""
    section = README.partition("\n## Configuration\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    fields = {field.name: field for field in dataclasses.fields(APIConfig)}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        variable, default, _ = (cell.strip(" `") for cell in rows[name].split("|", 2))
        assert variable == field.metadata.get("variable", "")
        number = re.match(r"[\d,.]+", default)
        if number and isinstance(field.default, (int, float)):
            scale = 1024 * 1024 if "MiB" in default else 1
            assert float(number[0].replace(",", "")) * scale == field.default, name
        elif isinstance(field.default, str):
            assert default.strip('"') == field.default, name
