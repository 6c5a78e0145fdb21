"""The Markdown pages are true: their code and commands run, their links lead somewhere."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import insert

from tests.support import opened
from tests.support.conversations import ROOT
from tests.support.pages import IS_CHECKOUT, Page, pages
from tracker import Tracker
from tracker.cli.main import cli as tracker_sync
from tracker.collector.keys import hash_key
from tracker.collector.main import cli as tracker_collector
from tracker.collector.store import Store
from tracker.collector.tables import api_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import CollectorProcess

PAGES = pages()
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
LANGUAGES = {"sh", "python", "json", "http", "ini", "cron", "dockerfile", "toml", "yaml", "text"}
LANGUAGES |= {"bash", "haproxy", "sql"}  # what tests/fleet runs
DEVELOPMENT = ("ruff", "mypy", "pytest")
INSTALLING = ("python3 -m venv", ". .venv/bin/activate", "pip install", "export ")
SHELL_ONLY = ("python ", "python3 -c", "echo ", "mkdir ", "tracker-collector serve")
BENCHMARKS = "python -m tests.benchmarks"


def with_code(language: str) -> pytest.MarkDecorator:
    found = [page for page in PAGES if page.code(language)]
    return pytest.mark.parametrize("page", found, ids=[page.name for page in found])


@pytest.fixture
def shell(
    page: Page,
    shared_collector: CollectorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CollectorProcess]:
    """A new user's shell: the commands on the path, a collector that runs, a key for it."""
    use(shared_collector, monkeypatch)
    monkeypatch.setenv("COLLECTOR_DATABASE_URL", str(tmp_path / "other.sqlite3"))
    know_key(tmp_path / "other.sqlite3")
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
    shutil.copy(certifi.where(), "ca.pem")
    Path("clients.txt").write_text("kiosk-19\nkiosk-20\n", "utf-8")
    yield shared_collector
    opened.close_all(timeout=5)
    logging.getLogger("agent").handlers.clear()


def use(collector: CollectorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment as for a new client of `collector`."""
    client_id = f"kiosk-{uuid.uuid4()}"
    monkeypatch.setenv("SDK_API_KEY", collector.create_key(client_id))
    monkeypatch.setenv("SDK_CLIENT_ID", client_id)
    monkeypatch.setenv("SDK_BASE_URL", collector.url)


def know_key(database: Path) -> None:
    """Let another collector, of which only commands know, have the key that is set."""
    store = Store(database)
    with store.writing("keys") as connection:
        values = {"client_id": os.environ["SDK_CLIENT_ID"], "operator": False, "created_at_ms": 0}
        key_hash = hash_key(os.environ["SDK_API_KEY"])
        connection.execute(insert(api_keys).values(key_hash=key_hash, **values))
    store.close()


def log_something() -> None:
    """Log what the commands of the pages show, with an export for an auditor besides."""
    with Tracker() as tracker:
        with tracker.performance.conversation(
            "agent_123", session_id="order-7", user_id="user_7"
        ) as conversation:
            conversation.user("Where is order 7?")
            conversation.tool("find_order", {"id": 7}, result={"status": "sent"})
            conversation.agent("On its way.", tokens_used=9)
            conversation.end(quality_score=5.0, outcome="resolved")
        tracker.llm.record_usage("openai", "gpt-4o", 900, 120, session_id="order-7")
        tracker.performance.record_feedback("order-7", score=4)
        tracker.performance.observe(len)("order-7")
        tracker.operations.heartbeat("agent_123")
        tracker.compliance.export_audit("audit.jsonl")
        tracker.flush()


# --- what every page has ---


@pytest.mark.skipif(not IS_CHECKOUT, reason="beside a wheel, only some of the pages are there")
def test_links_lead_somewhere() -> None:
    """A link leads to a file of the checkout and, with an anchor, to a heading in it."""
    known = {page.path: page for page in PAGES}
    for page in PAGES:
        for link in page.links():
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.path.parent / path).resolve() if path else page.path
            assert target.exists(), f"{page.name} leads to {link}"
            assert not anchor or anchor in known[target].anchors(), f"{page.name} leads to {link}"


@pytest.mark.skipif(not IS_CHECKOUT, reason="beside a wheel, only some of the pages are there")
def test_every_page_can_be_reached_from_the_first() -> None:
    """README links to all others."""
    readme = PAGES[0]
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in readme.links()}
    assert {page.path.resolve() for page in PAGES[1:]} <= linked


def test_blocks_are_of_a_language_that_is_checked() -> None:
    """No code stands on a page that no test looks at; only ``text`` is for people alone."""
    for page in PAGES:
        assert {block.language for block in page.blocks} <= LANGUAGES, page.name
        for text in page.code("json"):
            json.loads(text)


def test_pages_are_in_plain_english() -> None:
    """Words that nobody would say today are not used."""
    stilted = re.compile(
        r"\b(anew|afresh|lest|whoever|heed\w*|mend\w*|bear|bears)\b", re.IGNORECASE
    )
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            assert not stilted.findall(page.text), page.name


# --- Python ---


@with_code("python")
def test_python_blocks_run(page: Page, shell: CollectorProcess) -> None:
    """The Python blocks run one after the other, as a reader would run them."""
    namespace: dict[str, object] = {}
    for text in page.code("python"):
        exec(compile(text, page.name, "exec"), namespace)  # noqa: S102 - that is the test


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_python_blocks_are_typed(tmp_path: Path) -> None:
    """They pass `mypy --strict`, each page as one program: copying them leaves nothing to correct.

    Only functions without annotations are forgiven.
    """
    programs = []
    for number, page in enumerate(PAGES):
        if page.code("python"):
            programs.append(tmp_path / f"page_{number}.py")
            programs[-1].write_text("\n".join(page.code("python")), "utf-8")
    forgiven = ("no-untyped-def", "no-untyped-call", "untyped-decorator")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
            *(f"--disable-error-code={code}" for code in forgiven),
            *("--cache-dir", str(tmp_path / "cache"), *map(str, programs)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- shell ---


@with_code("sh")
def test_commands_end_well(page: Page, shell: CollectorProcess) -> None:
    """Each command works where something was logged; called in this process, which is quick."""
    log_something()
    for line in page.lines():
        if line.startswith((*INSTALLING, *SHELL_ONLY, *DEVELOPMENT, BENCHMARKS)):
            continue  # run by a slow test, by `test_newcomer`, or by .ci/run
        command, *arguments = shlex.split(line)
        if command == "curl":
            ask(shell, arguments)
        elif command == "sqlite3":
            assert arguments[0] == "$(tracker-sync path)", line
            with sqlite3.connect(invoke("tracker-sync", ["path"]).strip()) as connection:
                connection.execute(arguments[1])
            connection.close()
        else:
            invoke(command, arguments)


def invoke(command: str, arguments: list[str]) -> str:
    cli = {"tracker-sync": tracker_sync, "tracker-collector": tracker_collector}[command]
    done = CliRunner().invoke(cli, arguments, prog_name=command)
    assert done.exit_code == 0, f"{command} {arguments}\n{done.output}\n{done.exception!r}"
    return done.stdout


def ask(collector: CollectorProcess, arguments: list[str]) -> None:
    url = arguments[-1].replace("http://127.0.0.1:8080", collector.url)
    headers = [os.path.expandvars(arguments[at + 1]) for at in (0, 2)]
    answer = requests.get(url, headers=dict(each.split(": ") for each in headers), timeout=10)
    assert answer.status_code == 200, f"{url}\n{answer.text}"


@with_code("sh")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_shell_lines_run(page: Page, shell: CollectorProcess) -> None:
    """Each line runs in a shell and ends well, in the page's order."""
    log_something()
    Path("hello.py").write_text(PAGES[0].code("python")[0], "utf-8")
    for line in page.lines():
        if line.startswith("export "):
            assert line.split()[1].split("=")[0] in os.environ
        elif line.startswith("tracker-collector serve") and "--help" not in line:
            serve(f"{line} --port 0")
        elif not line.startswith((*INSTALLING, *DEVELOPMENT)):
            run(line.replace("http://127.0.0.1:8080", shell.url))


def run(line: str) -> str:
    if line.startswith("curl ") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = line.replace("curl ", "curl --fail --silent --show-error ")
    folder = ROOT if line.startswith(BENCHMARKS) else None
    done = subprocess.run(
        ["sh", "-c", line], check=False, capture_output=True, text=True, timeout=60, cwd=folder
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def serve(line: str) -> None:
    """Start a collector by its command line and end it as Ctrl-C would."""
    process = subprocess.Popen(["sh", "-c", f"exec {line}"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert "listening on http://127.0.0.1:" in process.stderr.readline()
        process.terminate()
        process.stderr.read()
    assert process.wait(timeout=30) == 0


def test_ci_runs_what_a_test_cannot() -> None:
    """The installing commands and the developers' checks are run by .ci/run, word for word."""
    for page in PAGES:
        for line in page.lines():
            if line.startswith("python3 -m venv .venv &&"):
                assert line in CI
            elif line.startswith(DEVELOPMENT):
                assert f".venv/bin/{line}" in CI


def test_queries_on_the_views_find_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_collector: CollectorProcess
) -> None:
    """The queries give rows once something was logged, so their columns mean what is said."""
    if not IS_CHECKOUT:
        pytest.skip("the outbox's page is not here")
    monkeypatch.chdir(tmp_path)
    use(shared_collector, monkeypatch)
    log_something()
    page = Page(ROOT / "tracker" / "outbox" / "README.md")
    queries = [shlex.split(line)[2] for line in page.lines() if line.startswith("sqlite3")]
    with sqlite3.connect(invoke("tracker-sync", ["path"]).strip()) as connection:
        found = {query: connection.execute(query).fetchall() for query in queries}
    connection.close()
    empty = [re.findall(r"FROM (\w+)", query)[0] for query, rows in found.items() if not rows]
    assert len(queries) == 10
    assert empty == ["pending", "dead_letters"]
