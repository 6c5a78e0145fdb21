"""The sync worker: a daemon thread that uploads the pending events of one outbox."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tracker import log, own_work
from tracker.clock import monotonic
from tracker.config import watched_key
from tracker.errors import OutboxError
from tracker.once import Once
from tracker.outbox import sync_state
from tracker.sync.pause import Pause
from tracker.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.config import APIConfig
    from tracker.outbox import Outbox
    from tracker.sync.destination import Destination
    from tracker.sync.made import MadeDestination
    from tracker.sync.uploader import Uploader

POLL_SECONDS = 1.0
"""Interval for checking what other processes did: new rows, a free upload lock, a flush."""

_JOIN_SECONDS = 0.1
_AT_FIRST_SECONDS = 0.5
_FREE_SECONDS = 0.5
"""Interval for releasing a lock that an interrupted call has left held."""
_PREPARING_SECONDS = 5.0
"""How long a fork waits for the thread to finish its preparations."""


class Worker:
    """Uploads in seq order, one batch in flight, in one process at a time.

    Owns its thread; the uploader and its destination, which are made and used only in that thread,
    under a lock that a fork and the interpreter's end also take; and, while it is the elected
    uploader, the outbox's upload lock. It holds that lock as long as it runs: when its process ends
    in any way, the worker of another process takes over within `POLL_SECONDS`.

    Other threads communicate with the thread by a few flags and a `Wakeup`, which is safe to set
    even in a signal handler.

    Attributes:
        elected: Whether this process uploads; None until the first attempt to get the lock.
        held_until: Time on the monotonic clock until which nothing may be sent, even by a flush.
    """

    def __init__(
        self, outbox: Outbox, config: APIConfig, make_destination: Callable[[], Destination]
    ) -> None:
        self._outbox = outbox
        self._config = config
        self._make_destination = make_destination
        self._reset()

    def _reset(self) -> None:
        self.elected: bool | None = None
        self.held_until = 0.0
        self._uploader: Uploader | None = None
        self._destination: MadeDestination
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._preparing = threading.RLock()
        self._resting = False
        self._wakeup = Wakeup()
        self._stopping = False
        self._then: Callable[[], None] | None = None
        self._news = False  # something was committed since the last check
        self._idle = False  # the thread waits for new events
        self._hurry = False  # end the pause early
        self._renew = False  # replace the destination
        self._ordered = False  # send what is pending though a setting keeps it back
        self._flush_requests: int | None = None
        self._watched_key = watched_key(self._config)
        self._logged = Once(most=1)

    @property
    def failures(self) -> int:
        """Number of failed attempts to upload so far."""
        return self._uploader.failures if self._uploader else 0

    @property
    def holds(self) -> int:
        """How often a setting kept back what was pending, so far."""
        return self._uploader.holds if self._uploader else 0

    def start(self) -> None:
        """Start the thread, unless it runs or the interpreter cannot start threads any more."""
        if not self._starting.acquire(blocking=False):
            return  # another call is doing it, perhaps the one that this call interrupts
        try:
            if self._thread is not None or self._stopping:
                return
            thread = threading.Thread(target=self._run, name="tracker-sync", daemon=True)
            thread.start()
            self._thread = thread
        except RuntimeError:  # interpreter shutdown: the events stay for the next start
            return
        finally:
            self._starting.release()

    def wake(self) -> None:
        """Tell the thread that something was committed. This is very cheap."""
        self._news = True
        if self._idle:
            self._wakeup.set()
        elif self._thread is None:
            self.start()

    def hurry(self, *, ordered: bool = False) -> None:
        """End the current pause early, unless the server or the byte rate asked for it.

        With `ordered`, what is pending is sent though the window or `may_upload` keeps it back.
        """
        self.start()
        self._ordered = self._ordered or ordered
        self._hurry = True
        self._wakeup.set()

    def use(self, make_destination: Callable[[], Destination], config: APIConfig) -> None:
        """Use another destination from the next request on, and try it at once."""
        self._make_destination = make_destination
        self._watched_key = watched_key(config)
        self._renew = True
        self.hurry()

    def stop(self, then: Callable[[], None]) -> None:
        """End the thread, then call `then`: here, or in the thread if a request still runs."""
        with self._starting:
            self._stopping = True
            self._then = then
            thread = self._thread
        if thread is None:
            then()
            return
        self._wakeup.set()
        thread.join(timeout=_JOIN_SECONDS)

    def rest_before_fork(self) -> None:
        """Wait until the thread is not preparing to upload, and keep it from doing so.

        In the child, a module that was being imported would stay incomplete forever, and a lock of
        OpenSSL, which is taken while a destination is made, would stay locked. `go_on` ends this.
        """
        self._resting = self._preparing.acquire(timeout=_PREPARING_SECONDS)

    def rest_at_exit(self, until: float) -> None:
        """Wait until the thread is not preparing to upload, and keep it from doing so for good.

        `until` is a time on the monotonic clock, at which the wait ends.

        What it imports or signs with may be written in Rust or C++: see `late_imports`. A request
        that still runs may be cut off, as its events are sent again after the next start.
        """
        self._preparing.acquire(timeout=max(until - monotonic(), 0))

    def go_on(self) -> None:
        """Continue after a fork, in the parent."""
        if self._resting:
            self._resting = False
            self._preparing.release()

    def restart_in_child(self) -> None:
        """Forget the parent's thread in a forked child; a new one starts when it is needed."""
        self._reset()

    def _run(self) -> None:
        try:
            own_work.stay()
            self._let_the_host_fork()
            while not self._stopping:
                own_work.stay()
                self._wait(self._round())
        finally:
            if self._uploader is not None:
                self._uploader.close()
            self._outbox.upload_lock.close()
            if not self._ended_by_host() and self._then is not None:
                self._then()

    def _ended_by_host(self) -> bool:
        """Return True if nobody asked the thread to end; the next event then starts another."""
        with self._starting:
            if not self._stopping:
                self._thread, self._idle = None, False
            return not self._stopping

    def _let_the_host_fork(self) -> None:
        """Do nothing at first, unless a flush waits.

        A server that loads the application and then forks its workers without Python's hooks, as
        uWSGI does, must find this thread asleep, and neither in an import nor waiting for the
        interpreter's lock: in the workers that would never end.
        """
        end = monotonic() + _AT_FIRST_SECONDS
        while not (self._stopping or self._hurry) and (left := end - monotonic()) > 0:
            self._sleep(left)
        self._hurry = False

    def _round(self) -> Pause:
        """Get the upload lock, then take one step."""
        try:
            self._outbox.maintain()
            if not self._outbox.upload_lock.try_acquire():
                self.elected = False
                return Pause(POLL_SECONDS)  # in which events in memory are written
            uploader = self._prepare()
            self.elected = True
            self._news = False
            if self._ordered:
                self._ordered = False
                uploader.order()
            pause = uploader.step()
            return self._checkpoint(uploader, pause)
        except OutboxError as error:
            self._say_once(str(error), traceback=False)
            return Pause(POLL_SECONDS)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread
            self._say_once(repr(error), traceback=True)
            return Pause(self._config.backoff_cap)

    def _checkpoint(self, uploader: Uploader, pause: Pause) -> Pause:
        """Log a checkpoint if one is due and there is time; return the pause before the next step.

        Trouble with it neither delays the next upload nor brings it forward.
        """
        try:
            if pause.seconds:
                # A fork waits: the first checkpoint imports what signs it.
                with self._preparing:
                    if uploader.checkpoint(reachable=pause.idle) and pause.idle:
                        pause = Pause(0.0)
            self._logged.forget()
        except OutboxError as error:
            self._say_once(str(error), traceback=False)
        except Exception as error:  # noqa: BLE001 - events are uploaded with evidence or without
            self._say_once(repr(error), traceback=True)
        return pause

    def _prepare(self) -> Uploader:
        """Return the uploader, with a destination for the present outbox."""
        with self._preparing:
            from tracker.sync.made import MadeDestination
            from tracker.sync.uploader import Uploader

            if self._uploader is None:
                self._destination = MadeDestination(self._make_destination)
                self._uploader = Uploader(self._outbox, self._config, self._destination)
            outbox_id = self._outbox.owner.outbox_id
            if self._renew or self._uploader.outbox_id != outbox_id:
                self._renew = False
                self._uploader.outbox_id = outbox_id
                self._destination.close()
                self._destination = MadeDestination(self._make_destination)
                self._uploader.destination = self._destination
            self._destination.prepare()
            return self._uploader

    def _say_once(self, trouble: str, *, traceback: bool) -> None:
        if self._logged.is_new(trouble):
            log.error("the sync thread continues after an error: %s", trouble, exc_info=traceback)

    def _wait(self, pause: Pause) -> None:
        if pause.idle:
            self._wait_for_news(pause.seconds)
            return
        end = monotonic() + pause.seconds
        if not pause.skippable:
            self.held_until = end
        while not self._stopping and (left := end - monotonic()) > 0:
            if pause.skippable and (
                self._take_hurry() or self._flush_requested() or self._key_is_new()
            ):
                return
            self._sleep(min(left, POLL_SECONDS))
            self._write_out_memory()
        self._hurry = False

    def _wait_for_news(self, seconds: float) -> None:
        """Wait until something is committed here, or until it is time to check for other rows."""
        self._idle = True
        if not self._news and not self._hurry:
            self._sleep(seconds)
        self._idle = False
        if self._news:
            # Wait for more events, so that not each one needs a request.
            end = monotonic() + self._config.flush_interval
            while not (self._stopping or self._hurry) and (left := end - monotonic()) > 0:
                self._sleep(min(left, POLL_SECONDS))
                if left > POLL_SECONDS and self._flush_requested():
                    break
        self._hurry = False

    def _write_out_memory(self) -> None:
        """Try again to write events that are kept in memory because storage failed."""
        try:
            self._outbox.maintain()
            self._outbox.drain_buffer()
        except OutboxError as error:
            self._say_once(str(error), traceback=False)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread
            self._say_once(repr(error), traceback=True)

    def _sleep(self, seconds: float) -> None:
        """Sleep until somebody wakes the thread, at most for `seconds`."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self._wakeup.wait(min(left, _FREE_SECONDS)):
                return
            self._outbox.connections.writer.retire_ended_call()

    def _key_is_new(self) -> bool:
        """Return True if the file of the API key holds another one than before."""
        return self._watched_key is not None and self._watched_key.changed()

    def _take_hurry(self) -> bool:
        hurry, self._hurry = self._hurry, False
        return hurry

    def _flush_requested(self) -> bool:
        """Return True if another process has asked for a flush since the last check."""
        try:
            with self._outbox.reading() as connection:
                state = sync_state.read_state(connection)
        except OutboxError as error:
            self._say_once(str(error), traceback=False)
            return False
        before, self._flush_requests = self._flush_requests, state.flush_requests
        if before is None or state.flush_requests == before:
            return False
        self._ordered = self._ordered or state.flush_now_requested(before)
        return True
