"""A backend of `GroupCommit` that commits to a list, in several steps, as a database does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker.events import Event
    from tracker.outbox.store.group_commit import Attempt


class Disk:
    """A list of committed events, with a lock that two processes would compete for."""

    def __init__(self) -> None:
        self.stored: list[Event] = []
        self.locked_by: ListBackend | None = None

    def ids(self) -> list[str]:
        return [event.event_id for event in self.stored]


class ListBackend:
    """Commits to a `Disk` in several steps, as a database does."""

    def __init__(self, disk: Disk, on_step: Callable[[str], None] = lambda _: None) -> None:
        self.disk = disk
        self._on_step = on_step
        self._pending: list[Event] = []
        self._land = disk.stored.extend
        self.retired = False

    def append(self, event: Event) -> bool:
        self._begin()
        self._pending = [event]
        self._commit()
        return True

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        self._begin()
        self._pending = list(events)
        self._on_step("written")
        self._commit(attempt)

    def transact(self, job: Callable[[Any], object], attempt: Attempt) -> None:
        self._begin()
        attempt.result = job(self)
        self._commit(attempt)

    def append_missing(self, event: Event) -> None:
        if event not in self.disk.stored:
            self._pending.append(event)

    def write(self, event: Event) -> None:
        self._pending.append(event)

    def retire(self, *, suspended: bool, sound: bool) -> ListBackend:
        self.retired = True
        self._land = refuse
        if self.disk.locked_by is self:
            self.disk.locked_by = None
        return ListBackend(self.disk, self._on_step)

    def close(self) -> None:
        self._check()

    def explain(self, error: Exception) -> Exception:
        return OutboxError(str(error)) if isinstance(error, LookupError) else error

    def is_conflict(self, error: Exception) -> bool:
        return isinstance(error, KeyError)

    def _begin(self) -> None:
        self._check()
        holder = self.disk.locked_by
        assert holder is self or holder is None or holder.retired, "two lead at once"
        self.disk.locked_by = self
        self._pending = []
        self._on_step("begun")

    def _commit(self, attempt: Attempt | None = None) -> None:
        self._check()
        # In one step for the interpreter, as SQLite's COMMIT is.
        landed = [] if attempt is None else attempt.landed
        landed.extend(map(self._land, (self._pending,)))
        self._on_step("committed")
        if self.disk.locked_by is self:
            self.disk.locked_by = None

    def _check(self) -> None:
        if self.retired:
            raise LookupError("retired")


def refuse(_: object) -> None:
    raise LookupError("retired")
