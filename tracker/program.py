"""Start and end of this package's programs, for any terminal or pipe."""

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
    """Run a click program; print one line and exit with 1 if it is interrupted or cannot write.

    Ctrl-C during interpreter shutdown just ends it.
    """
    _complete_streams()
    try:
        try:
            program()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            sys.stdout.flush()
    except KeyboardInterrupt:  # before click handles it in the same way
        click.echo("\nAborted!", err=True)
        sys.exit(1)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            named = f"{error.filename}: " if error.filename else ""
            click.echo(readable(f"Error: {named}{error.strerror or error}"), err=True)
        # The interpreter would try to write the rest again and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complete_streams() -> None:
    """Make sure that the standard streams exist and accept any text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by the caller, as with `>&-` in a shell
            os.open(os.devnull, os.O_RDWR)  # takes that number, so that no outbox gets it
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115, PTH123 - stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The text of an event must not fail to print, whatever the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
