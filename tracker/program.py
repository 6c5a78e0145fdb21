"""How the programs of this package begin and end, whatever terminal or pipe they are given."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from tracker.errors import readable

if TYPE_CHECKING:
    from collections.abc import Callable


def run(program: Callable[[], None]) -> None:
    """Run a program of click's; end it in one line where it is interrupted or cannot write.

    Exit code 1 then. Ctrl-C while the interpreter ends just ends it.
    """
    _complete_streams()
    try:
        try:
            program()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            sys.stdout.flush()
    except KeyboardInterrupt:  # before click listens; it says the same
        click.echo("\nAborted!", err=True)
        sys.exit(1)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            named = f"{error.filename}: " if error.filename else ""
            click.echo(readable(f"Error: {named}{error.strerror or error}"), err=True)
        # The interpreter would try to write again what could not be, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complete_streams() -> None:
    """See that there are streams and that they take any text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started this, as by `>&-` in a shell
            os.open(os.devnull, os.O_RDWR)  # has that number now, which no outbox should get
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115, PTH123 - to stay
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever a terminal's encoding: an event's text must not end in a traceback.
            stream.reconfigure(errors="backslashreplace")
