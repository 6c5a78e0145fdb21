"""Runs every command of `tracker-sync` and `tracker-collector` under one condition.

``python -m tests.support.each_command CONDITION FOLDER`` prints, as JSON, how each one ended. Each
runs in a forked child that ends as a process of its own does, after all imports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker import AgentPerformanceTracker, APIConfig
from tracker.cli import main as sync
from tracker.collector import main as collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = 54321
UNDECODABLE = os.fsdecode(b"s\xe9")
SESSION = "s\N{LATIN SMALL LETTER E WITH ACUTE}"

SYNC = {
    "flush": ["--timeout", "0"],
    "outboxes": [],
    "status": [],
    "dashboard": [],
    "list": [],
    "show": ["1"],
    "tail": ["--no-follow"],
    "conversations": [],
    "conversation": [SESSION],
    "trace": ["--last"],
    "spans": ["--open"],
    "unclosed": ["--idle", "0s"],
    "metrics": [],
    "agents": [],
    "usage": [],
    "scores": [],
    "export": [],
    "stats": [],
    "dead list": [],
    "dead retry": ["--all"],
    "dead discard": ["--all", "--yes"],
    "erase": ["somebody", "--yes"],
    "verify": [],
    "evidence": ["--seq", "1", "--output", "NEW"],
    "report": ["--framework", "soc2", "--json"],
    "doctor": [],
    "prune": [],
    "migrate": [],
    "pack": ["--output", "NEW"],
    "receipts": ["BACKUP"],
    "resend": ["--since", "1h"],
    "rebind": ["--client-id", "c"],
    "backup": ["NEW"],
    "restore": ["BACKUP"],
    "path": [],
    "config": [],
    "run": [],
}
"""Arguments of each command. The demonstration is left out: it has an outbox of its own."""
COLLECTOR = {
    "keys create": ["--operator"],
    "keys list": [],
    "keys rotate": ["1"],
    "keys audit": [],
    "doctor": [],
    "keys revoke": ["1"],
    "witness-key": [],
    "outbox-key": ["--client", "c", "--outbox", "0" * 32],
    "unpack": ["BACKUP", "--receipts", "NEW"],
    "erase": ["somebody", "--client", "c", "--yes"],
    "forward": ["--status"],
    "partitions": [],
    "migrate": [],
    "prove": ["--all"],
    "roll": ["--once"],
    "retain": ["--days", "30", "--yes"],
    "serve": ["--port", "0"],
}
ENDLESS = ("run", "serve", "dashboard")
FAILING = ("no home", "forbidden folder", "undecodable argument")
"""Conditions under which a command that would serve for ever ends, too."""


def names(group: click.Command, before: str = "") -> Iterator[str]:
    """Yield every command's whole name; import it."""
    if not isinstance(group, click.Group):
        yield before.strip()
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from names(command, f"{before} {name}")


def interrupt_at(call: int) -> Callable[[], None]:
    """Return what has SIGINT come at the n-th call of a function, counted from then on."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        remaining = call

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal remaining
            remaining -= event == "call"
            if not remaining:
                remaining = -1
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

        sys.setprofile(count)

    return prepare


def closed_pipe() -> None:
    """Have nobody read stdout."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - which cannot seek any more


def no_stdout() -> None:
    """Have no stdout at all, as after ``>&-`` in a shell."""
    os.close(1)
    sys.stdout = None  # Python does so


def full_disk() -> None:
    """Have no room where stdout goes."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def ascii_terminal() -> None:
    """Have a terminal, or a log, that knows ASCII only."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(
            sys,
            name,
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "ascii", write_through=True),
        )


def another_user() -> None:
    """Become a user of whom the system knows nothing."""
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    for name in ("HOME", "XDG_DATA_HOME", "SDK_OUTBOX_PATH", "COLLECTOR_DATABASE_URL"):
        os.environ.pop(name, None)


def nothing() -> None:
    """Leave all as it is."""


PREPARE: dict[str, Callable[[], None]] = {
    "closed pipe": closed_pipe,
    "no stdout": no_stdout,
    "full disk": full_disk,
    "ASCII terminal": ascii_terminal,
    "no home": another_user,
    "forbidden folder": another_user,
    "undecodable path": nothing,
    "undecodable argument": nothing,
    "interrupted early": interrupt_at(300),
    "interrupted": interrupt_at(3_000),
    "interrupted late": interrupt_at(9_000),
}


def arguments_of(condition: str, folder: Path, option: str, place: Path) -> list[str]:
    """Return the arguments that say where the outbox, or the collector's database, is."""
    if condition == "no home":
        return []
    if condition == "forbidden folder":
        place = folder / "forbidden" / place.name
    if condition == "undecodable path":
        place = folder / (UNDECODABLE + place.name)
    return [option, str(place)]


def run(
    main: Callable[[], None], arguments: list[str], prepare: Callable[[], None]
) -> tuple[int, str, str]:
    """Run a command line in a child; return its code, stdout and stderr."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if not child:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - until the process ends
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            sys.argv = ["command", *arguments]
            prepare()
            main()
            sys.exit()  # all the way up, so that the process ends as any
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def fill(path: Path) -> None:
    """Log a conversation and more, in text that is not ASCII."""
    config = APIConfig(
        api_key="k", client_id="c", base_url="http://127.0.0.1:9", outbox_path=path, exit_timeout=0
    )
    with AgentPerformanceTracker(config) as tracker:
        tracker.start_conversation(SESSION, user_id="somebody", session_id=SESSION)
        tracker.log_user_message(SESSION, "Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}\xdfe " * 5_000)
        tracker.get_metrics()


def every(condition: str, folder: Path) -> Iterator[tuple[str, tuple[int, str, str]]]:
    """Run each command, and yield its name and how it ended."""
    outbox, database = folder / "outbox.sqlite3", folder / "collector.sqlite3"
    (folder / "forbidden").mkdir(mode=0o700)
    warm = run(lambda: fill(outbox), [], nothing)
    assert warm[0] == 0, warm
    run(sync.main, ["--outbox", str(outbox), "backup", str(folder / "backup.sqlite3")], nothing)
    prepare = PREPARE[condition]
    groups: tuple[tuple[dict[str, list[str]], Any, str, Path], ...] = (
        (SYNC, sync.main, "--outbox", outbox),
        (COLLECTOR, collector.main, "--database", database),
    )
    for commands, main, option, place in groups:
        for number, (name, own) in enumerate(commands.items()):
            if name in ENDLESS and condition not in FAILING:
                continue
            names = {
                "NEW": str(folder / f"copy-{number}.sqlite3"),
                "BACKUP": str(folder / "backup.sqlite3"),
            }
            where = arguments_of(
                condition,
                folder,
                option,
                place if name != "restore" else folder / "restored.sqlite3",
            )
            rest = [names.get(each, each) for each in own]
            if condition == "undecodable argument":
                rest = [each if each.startswith("-") else UNDECODABLE for each in rest]
                rest += [] if rest else [UNDECODABLE]
            yield name, run(main, [*name.split(), *where, *rest], prepare)


def main() -> None:
    """Run all of them and print how they ended."""
    sync_names = {*names(sync.cli)} - {"demo"}
    collector_names = {*names(collector.cli)}
    assert sync_names == {*SYNC}, "each command needs its arguments here"
    assert collector_names == {*COLLECTOR}, "each command needs its arguments here"
    os.environ.update(SDK_API_KEY="k", SDK_BASE_URL="http://127.0.0.1:9")
    os.environ.pop("SDK_CLIENT_ID", None)
    os.chdir(sys.argv[2])  # some commands make files
    with contextlib.suppress(ImportError):
        import encodings.idna  # noqa: F401 - for a user who cannot read the library
        import html.entities  # noqa: F401
    ended = dict(every(sys.argv[1], Path(sys.argv[2])))
    print(json.dumps(ended))  # noqa: T201 - for the test


if __name__ == "__main__":
    main()
