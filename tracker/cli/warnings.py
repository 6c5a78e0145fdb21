"""The package's warnings on stderr, a line each, while a command runs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tracker import stderr
from tracker.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


class _ToStderr(logging.Handler):
    """Prints the first line of each record; a traceback after it is for an application's log.

    Of a missing chain key only `verify` speaks: it matters to applications, and most commands log
    no event. `flush` itself says why an upload failed.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for what is not for the users of commands."""
        retried = record.module == "uploader" and record.levelno < logging.ERROR
        return not (retried or record.module == "chain_key" or stderr.is_shown())

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        first = record.getMessage().partition("\n")[0]
        click.echo(f"Warning: {printable(first)}", err=True)


@contextmanager
def on_stderr() -> Iterator[None]:
    """Print what the logger ``tracker`` gets in the block, from WARNING on.

    A command can do more than it was asked for, such as replacing a damaged outbox. Its user must
    hear of that.
    """
    logger = logging.getLogger("tracker")
    handler = _ToStderr(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
