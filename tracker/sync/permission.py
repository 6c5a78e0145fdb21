"""`Permission`: asks the application whether the next request may be made."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracker import log
from tracker.delivery.words import one_line
from tracker.once import Once
from tracker.sync.hold import Hold
from tracker.sync.made import reraise, shown
from tracker.sync.pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASK_AGAIN_SECONDS = 30.0
"""Pause after a no; a flush ends it early."""
PATIENCE_SECONDS = 10.0
"""How long an answer may take before it is reported as missing."""


class Permission:
    """Calls `may_upload`, and treats whatever is neither True nor False as a no.

    The events are safe in the outbox, and a request on a metered link may be dear; so a function
    that fails keeps back what a working one might have let pass, and this is reported as trouble.

    Args:
        may_upload: The application's function; None if every request may be made.
        report: Stores a `Hold` while the function is still running: for one that never returns.
    """

    def __init__(
        self, may_upload: Callable[[], bool] | None, report: Callable[[Hold], None]
    ) -> None:
        self._may_upload = may_upload
        self._report = report
        self._logged = Once(most=1)

    def refusal(self) -> Hold | None:
        """Ask, and return why the next request may not be made; None if it may."""
        if self._may_upload is None:
            return None
        with self._watched():
            try:
                answer: object = self._may_upload()
            except BaseException as error:  # noqa: BLE001 - the application's; see `reraise`
                reraise(error)
                return self._fault(f"may_upload raised {type(error).__name__}: {one_line(error)}")
        if not isinstance(answer, bool):
            if isinstance(answer, Coroutine):
                answer.close()  # otherwise Python warns that nobody awaited it
            return self._fault(f"may_upload returned {shown(answer)}, neither True nor False")
        self._logged.forget()
        return None if answer else _hold("may_upload said no")

    def _fault(self, what: str) -> Hold:
        if self._logged.is_new(what):
            log.error("%s: nothing is uploaded until it returns True", what)
        return _hold(what, is_trouble=True)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Report from another thread if the block takes long: this one cannot."""
        timer = threading.Timer(PATIENCE_SECONDS, self._report_silence)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # interpreter shutdown: no thread can be started any more
            yield
            return
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _report_silence(self) -> None:
        what = f"may_upload has not returned for {PATIENCE_SECONDS:g} s"
        log.error("%s: nothing is uploaded until it does", what)
        self._report(Hold(what, Pause(0.0), is_trouble=True))


def _hold(because: str, *, is_trouble: bool = False) -> Hold:
    said = f"{because}; it is asked again every {ASK_AGAIN_SECONDS:g} s"
    return Hold(said, Pause(ASK_AGAIN_SECONDS), is_trouble=is_trouble)
