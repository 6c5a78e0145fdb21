"""What `serve` writes to stderr: lines for people, or one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

import click

from tracker.collector.occasionally import Occasionally

if TYPE_CHECKING:
    from collections.abc import Iterator

LogFormat = Literal["text", "json"]

_KEY = re.compile(r"trk_[A-Za-z0-9_-]{8,}")
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}

logger = logging.getLogger(__name__)


class TextLines(logging.Formatter):
    """Lines for people, without API keys."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, which a traceback makes several."""
        return _masked(super().format(record))


class JSONLines(logging.Formatter):
    """One JSON object a line, without API keys.

    It has ``time`` (UTC), ``level``, ``logger``, ``message``, ``process``, ``exception`` if there
    is one, and what was given as ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        shown: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _OWN:
                shown.setdefault(name, value)
        return _masked(json.dumps(shown, default=repr))


class Voice:
    """Says how the server starts, and sets `logging` up.

    Args:
        kind: What each line is.
    """

    def __init__(self, kind: LogFormat) -> None:
        self._is_json = kind == "json"

    def set_up(self) -> None:
        """Have all loggers write to stderr in this form."""
        handler = logging.StreamHandler()
        handler.addFilter(Occasionally())
        handler.setFormatter(JSONLines() if self._is_json else TextLines())
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logger.setLevel(logging.INFO)
        logging.captureWarnings(self._is_json)

    def say(self, text: str, **fields: object) -> None:
        """Say what is as it should be."""
        if self._is_json:
            logger.info(text, extra=fields)
        else:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Say what an operator may not have meant."""
        if self._is_json:
            logger.warning(text)
        else:
            click.echo(f"warning: {text}", err=True)

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Have an error of the command in the block, which ends it, be a line like the others."""
        try:
            yield
        except click.ClickException as error:
            if not self._is_json:
                raise
            logger.error(error.format_message())
            sys.exit(error.exit_code)


def _masked(text: str) -> str:
    return _KEY.sub("trk_[masked]", text)
