"""The steps of ``tracker-sync demo`` and its result."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tracker.config import APIConfig
from tracker.demo.agent import CONVERSATIONS, KILL_AFTER_STEP, LAST_TALK
from tracker.demo.checks import Check, Evidence, StoredEvent, check_all, kept, read_record
from tracker.demo.processes import (
    DATABASE,
    DEADLINE_SECONDS,
    Child,
    Children,
    Collector,
    DemoError,
    without_settings,
)
from tracker.errors import TrackerError
from tracker.outbox import Outbox, ledger, sync_state, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection


_CLIENT = "demo-kiosk"
_POLL_SECONDS = 0.02
_OUTBOX = "outbox.sqlite3"
_RECORD = "acknowledged.jsonl"
_STORED = """
SELECT seq, event_id, type, session_id, digest,
       CASE WHEN delivered_at_ms IS NOT NULL THEN 'delivered'
            WHEN dead_at_ms IS NOT NULL THEN 'dead' ELSE 'pending' END
FROM events ORDER BY seq
"""


def run(*, keep: bool, dashboard: bool = False) -> int:
    """Run the demo; return 0 if every check held, otherwise 1.

    Args:
        keep: Whether to keep the data.
        dashboard: Whether to show it in the browser then, until Ctrl-C.
    """
    console = Console(highlight=False)
    with _orderly_end(), without_settings(), _folder(keep) as folder:
        try:
            with Children(folder) as children:
                held = _Story(console, folder, children).tell()
        except (TrackerError, requests.RequestException, OSError) as error:
            console.print(Text(f"\nThe demo failed: {error}", "bold red"), soft_wrap=True)
            held = False
        _show_paths(console, folder, keep)
        if dashboard:
            _show_dashboard(console, folder / _OUTBOX)
    return 0 if held else 1


def _show_dashboard(console: Console, outbox: Path) -> None:
    """Run the dashboard in a process of its own until it is ended by Ctrl-C or SIGTERM."""
    console.print(Text("\nThe dashboard, until Ctrl-C:"))
    command = ["-m", "tracker.cli.main", "--outbox", str(outbox), "dashboard", "--open"]
    child = subprocess.Popen([sys.executable, *command])  # noqa: S603 - this Python, our own module
    try:
        child.wait()
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C reaches it as well; SIGTERM does not
        child.terminate()
        child.wait()


def _show_paths(console: Console, folder: Path, keep: bool) -> None:
    """Print the paths of the files, and how to inspect them."""
    if not keep:
        console.print(Text("The data is deleted now. To inspect it, keep it:"))
        console.print(Text("  tracker-sync demo --keep", "cyan"), soft_wrap=True)
        return
    outbox = folder / _OUTBOX
    for line in (
        "The data is kept. Inspect it:",
        f"  outbox                                  {outbox}",
        f"  the agent's record                      {folder / _RECORD}",
        f"  collector's database                    {folder / DATABASE}",
    ):
        console.print(Text(line), soft_wrap=True)
    for command in ("conversations", "list --delivered --limit 5", "verify"):
        look = f"  tracker-sync --outbox {shlex.quote(str(outbox))} {command}"
        console.print(Text(look, "cyan"), soft_wrap=True)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tracker-demo-")).resolve()
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C, so that `finally` blocks run."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda got, _: sys.exit(128 + got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Story:
    """One run: its folder, its processes and its output."""

    def __init__(self, console: Console, folder: Path, children: Children) -> None:
        self._console = console
        self._children = children
        self._outbox = folder / _OUTBOX
        self._record = folder / _RECORD
        self._collector = Collector(children, folder, _CLIENT)
        self._step = 0

    def tell(self) -> bool:
        """Run all steps; return True if all checks hold."""
        self._open_and_close_collector()
        session = self._kill_agent()
        safe = self._show_outbox()
        self._collector.start()
        self._say(f"The collector is up again at {self._collector.url}.")
        with self._opened_outbox() as outbox:
            self._sync(session, outbox)
            evidence = self._gather(outbox)
        self._say("Was anything lost? The received events, compared with the agent's record:")
        checks = [safe, *self._show_checks(check_all(evidence))]
        self._collector.stop()
        failed = sum(not check.held for check in checks)
        if failed:
            self._print(f"\n{failed} of {len(checks)} checks FAILED.", "bold red")
        else:
            self._print(f"\nAll {len(checks)} checks held.", "bold green")
        return not failed

    def _open_and_close_collector(self) -> None:
        self._collector.start()
        self._collector.stop()
        self._say(
            f"A collector was started at {self._collector.url} and made an API key. It is down now."
        )

    def _kill_agent(self) -> str:
        """Let the agent log, kill it in mid-conversation, and return that conversation's id."""
        agent = self._start_agent("agent")
        self._say(f"An agent (pid {agent.pid}) logs conversations; no collector runs.")
        place = {"conversation": CONVERSATIONS, "step": KILL_AFTER_STEP}
        while json.loads(agent.line()) != place:
            pass
        code = agent.kill()
        if code != -signal.SIGKILL:
            raise agent.ended()
        acknowledged = read_record(self._record)
        started = [entry.returned for entry in acknowledged if entry.call == "start_conversation"]
        ended = sum(entry.call == "end_conversation" for entry in acknowledged)
        if len(started) != ended + 1:
            raise DemoError("the agent was not in the middle of a conversation when it was killed")
        self._print(f"   {len(acknowledged)} events were acknowledged with the collector down.")
        self._say(
            f"The agent was killed with SIGKILL in the middle of conversation {len(started)}: "
            f"'{LAST_TALK.topic}'."
        )
        return started[-1]

    def _show_outbox(self) -> Check:
        """Show the outbox after the kill; check that no acknowledged event is missing."""
        with self._opened_outbox() as outbox, outbox.snapshot() as connection:
            stored = _read_stored(connection)
            trouble = sync_state.read_state(connection).last_error
        self._say("The outbox contains:")
        self._console.print(Padding(_table(stored), (0, 0, 0, 2), expand=False))
        if trouble:
            self._print(f"   Why nothing was delivered: {trouble}")
        check = kept(read_record(self._record), stored)
        self._show_checks([check])
        return check

    def _sync(self, session: str, outbox: Outbox) -> None:
        """Restart the agent, which continues where it was killed, and watch it upload."""
        agent = self._start_agent("restarted agent", "--resume", session)
        self._say(
            f"The agent was restarted (pid {agent.pid}): it resumes that conversation, syncs."
        )
        bar = BarColumn(40, complete_style="green", finished_style="green")
        columns = (TextColumn("  "), bar, MofNCompleteColumn(), TextColumn("delivered"))
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("sync", total=None)
            end = time.monotonic() + 2 * DEADLINE_SECONDS
            while agent.running and time.monotonic() < end:
                _show_progress(progress, task, outbox)
                time.sleep(_POLL_SECONDS)
            _show_progress(progress, task, outbox)
        if agent.wait() != 0:
            raise agent.ended()
        flushed = [line["flushed"] for line in map(json.loads, agent.rest()) if "flushed" in line]
        if len(flushed) != 1:
            raise DemoError("the restarted agent ended without having flushed")

    def _gather(self, outbox: Outbox) -> Evidence:
        with outbox.snapshot() as connection:
            stored = _read_stored(connection)
            book = ledger.read(connection)
            report = verify.verify(connection)
        return Evidence(
            acknowledged=read_record(self._record),
            received=self._collector.events(),
            reports=self._collector.outboxes(),
            stored=stored,
            outbox_id=outbox.owner.outbox_id,
            account=book,
            integrity=report,
        )

    def _start_agent(self, name: str, *arguments: str) -> Child:
        return self._children.start(
            name,
            "tracker.demo.agent",
            *("--outbox", str(self._outbox)),
            *("--base-url", self._collector.url),
            *("--client", _CLIENT),
            *("--record", str(self._record)),
            *arguments,
            # In the environment, since other users of this machine can read arguments.
            SDK_API_KEY=self._collector.api_key,
        )

    @contextmanager
    def _opened_outbox(self) -> Iterator[Outbox]:
        """Yield the outbox for reading. No worker is started, so nothing is sent from here."""
        config = APIConfig(
            api_key=self._collector.api_key,
            client_id=_CLIENT,
            base_url=self._collector.url,
            outbox_path=self._outbox,
            disabled=False,
            allow_insecure_http=False,
        )
        outbox = Outbox(config)
        try:
            yield outbox
        finally:
            outbox.close()

    def _say(self, text: str) -> None:
        self._step += 1
        line = Text.assemble((f"{self._step}. ", "bold cyan"), (text, "bold"))
        self._console.print(line, soft_wrap=True)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)

    def _show_checks(self, checks: Sequence[Check]) -> Sequence[Check]:
        tick, cross = "✓✗" if self._console.encoding.startswith("utf") else "+-"
        for check in checks:
            mark = (f"{tick} ", "bold green") if check.held else (f"{cross} ", "bold red")
            line = Text.assemble("   ", mark, check.claim, (f" ({check.figures})", "dim"))
            self._console.print(line, soft_wrap=True)
        return checks


def _read_stored(connection: Connection) -> list[StoredEvent]:
    return [StoredEvent(*row) for row in connection.exec_driver_sql(_STORED)]


def _show_progress(progress: Progress, task: Any, outbox: Outbox) -> None:
    with outbox.reading() as connection:
        book = ledger.read(connection)
    progress.update(task, total=book.accepted, completed=book.delivered)


def _table(stored: Iterable[StoredEvent]) -> Table:
    counts = Counter((event.type, event.state) for event in stored)
    states = ("pending", "delivered", "dead")
    table = Table("type", box=None, header_style="bold", show_footer=True)
    table.columns[0].footer = "all"
    for state in states:
        total = sum(count for (_, at), count in counts.items() if at == state)
        table.add_column(state, justify="right", footer=str(total))
    for type_ in sorted({type_ for type_, _ in counts}):
        table.add_row(type_, *(str(counts[type_, state]) for state in states))
    return table
