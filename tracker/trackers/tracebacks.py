"""`traceback_of`: where an exception came from, as text of a bounded size without local variables.

It looks like Python's own: frames with their source line, the exceptions that it was raised from or
while handling, and those of a group. Frames of this package are left out. The text is masked as a
whole and truncated in the middle then. Without content, there are no messages and source lines.
"""

from __future__ import annotations

import linecache
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.redaction.uncut import cut_middle
from tracker.trackers.capture import readable, share, type_name
from tracker.trackers.reporting import MAX_ERROR_TEXT, error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from tracker.config import APIConfig
    from tracker.span_context import SpanContext

MOST_CHARACTERS = 20_000
_FEWEST_CHARACTERS = 200
_MOST_FRAMES = 50
"""Maximum number of frames of one exception: as many from its beginning as from its end."""
_MOST_EXCEPTIONS = 10
_MOST_NOTES = 10
_MOST_SOURCE = 500

_OWN = str(Path(__file__).parents[1]) + os.sep
_HEADING = "Traceback (most recent call last):"
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"

# Not as attributes of the exception: its class may define others of these names.
_cause: Callable[[BaseException], BaseException | None]
_cause = BaseException.__dict__["__cause__"].__get__
_context: Callable[[BaseException], BaseException | None]
_context = BaseException.__dict__["__context__"].__get__
_suppresses: Callable[[BaseException], bool]
_suppresses = BaseException.__dict__["__suppress_context__"].__get__
_frames_of: Callable[[BaseException], TracebackType | None]
_frames_of = BaseException.__dict__["__traceback__"].__get__


def traceback_of(error: BaseException, config: APIConfig) -> str | None:
    """Return the traceback of an exception; None if it has none, or there is no room for it.

    Text of an exception that cannot be read is replaced; nothing that it raises is passed on.
    """
    most = min(MOST_CHARACTERS, share(config.max_event_bytes))
    if most < _FEWEST_CHARACTERS or _frames_of(error) is None:
        return None
    try:
        lines = list(_Writer(content=config.capture_content).exception(error))
        return cut_middle(readable("\n".join(lines)), most)
    except Exception:  # noqa: BLE001 - an odd exception, or no stack left: its message is stored
        return None


def end(span: SpanContext | None, error: BaseException | None, config: APIConfig) -> str | None:
    """End a span; return the traceback of the exception that escaped it, if there is something new.

    An exception that passes through several spans is told by the innermost of them only.
    """
    parent = None
    if span is not None:  # or tasks that start one another would make a chain without end
        parent, span.parent = span.parent, None
    if error is None:
        return None
    same = _same(error)
    if parent is not None:
        parent.told = same
    return None if span is not None and span.told == same else traceback_of(error, config)


def _same(error: BaseException) -> object:
    """Return what tells an exception from others; it must not be kept, nor what its frames hold."""
    last = _frames_of(error)
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = None if last is None else (last.tb_frame.f_code.co_filename, last.tb_lineno)
    return id(error), type(error).__name__, place


class _Writer:
    """Writes one exception with all that belongs to it, up to the limits."""

    def __init__(self, *, content: bool) -> None:
        self._content = content
        self._left = _MOST_EXCEPTIONS
        self._seen: set[int] = set()

    def exception(self, error: BaseException) -> Iterator[str]:
        """Yield the lines of an exception, after those that it came from."""
        chain = [(error, "")]
        self._take(error)
        while (before := self._before(chain[-1][0])) is not None:
            if self._left <= 0:
                yield from ("[older exceptions left out]", "")
                break
            self._take(before[0])
            chain.append(before)
        for each, link in reversed(chain):
            yield from self._alone(each)
            if link:
                yield from ("", link, "")

    def _take(self, error: BaseException) -> None:
        self._seen.add(id(error))
        self._left -= 1

    def _before(self, error: BaseException) -> tuple[BaseException, str] | None:
        """Return the exception that another came from, with the line between them."""
        cause, context = _cause(error), _context(error)
        found, link = (cause, _CAUSE) if cause is not None else (context, _CONTEXT)
        if found is None or id(found) in self._seen or (cause is None and _suppresses(error)):
            return None
        return found, link

    def _alone(self, error: BaseException) -> Iterator[str]:
        """Yield the lines of one exception, and of those in it if it is a group."""
        frames = list(self._frames(_frames_of(error)))
        if frames:
            yield _HEADING
            yield from frames
        yield from self._message(error)
        inner: Any = getattr(error, "exceptions", None)
        if not _is_group(error) or type(inner) is not tuple:
            return
        for number, each in enumerate(inner, 1):
            if self._left <= 0:
                yield f"  [{len(inner) - number + 1} more exceptions left out]"
                return
            yield f"  +-- {number} of {len(inner)}"
            for line in "\n".join(self.exception(each)).split("\n"):
                yield f"  | {line}"

    def _frames(self, frames: TracebackType | None) -> Iterator[str]:
        first: list[tuple[str, int, str]] = []
        last: deque[tuple[str, int, str]] = deque(maxlen=_MOST_FRAMES // 2)
        count = 0
        while frames is not None:
            code = frames.tb_frame.f_code
            if not code.co_filename.startswith(_OWN):
                count += 1
                kept = first if len(first) < _MOST_FRAMES // 2 else last
                kept.append((code.co_filename, frames.tb_lineno or 0, code.co_name))
            frames = frames.tb_next
        for frame in first:
            yield from self._frame(*frame)
        if left_out := count - len(first) - len(last):
            yield f"  [{left_out:,} frames left out]"
        for frame in last:
            yield from self._frame(*frame)

    def _frame(self, path: str, line: int, name: str) -> Iterator[str]:
        yield f'  File "{path}", line {line}, in {name}'
        if self._content and (source := linecache.getline(path, line).strip()):
            yield f"    {source[:_MOST_SOURCE]}"

    def _message(self, error: BaseException) -> Iterator[str]:
        name = type_name(error)
        if not self._content:
            yield name
            return
        text = _whole(error_text(error))
        yield f"{name}: {text}" if text else name
        notes: Any = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            yield from (_whole(note) for note in notes[:_MOST_NOTES] if isinstance(note, str))


def _is_group(error: BaseException) -> bool:
    """Return True for an exception group, which Python has from 3.11 on."""
    return any(base.__name__ == "BaseExceptionGroup" for base in type(error).__mro__)


def _whole(text: str) -> str:
    """Return a text, or its size: what is cut before it is masked may show part of a secret."""
    length = str.__len__(text)
    if length > MAX_ERROR_TEXT:
        return "[a longer text, left out]"
    return str.__str__(text)
