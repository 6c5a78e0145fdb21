"""What happens around a fork, and the new start in a child, however it was forked.

`os.fork` calls Python's hooks; a fork by the program around the interpreter, such as uWSGI's into
its workers, may call none. So every entry point calls `check`, which notices that the process is a
child that has not been restarted.
"""

from __future__ import annotations

import enum
import os
from threading import get_ident
from typing import TYPE_CHECKING

from tracker.clock import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.001


class Stage(enum.IntEnum):
    """The hooks in a forked child, in the order in which they run."""

    HASHES = enum.auto()
    """Digests are computed without OpenSSL, whose locks the parent may have held."""
    IDS = enum.auto()
    """The source of ids gets a new lock."""
    LOG = enum.auto()
    """The log gets a new lock."""
    IMPORTS = enum.auto()
    """Late imports get a new lock."""
    OPEN_FILES = enum.auto()
    """The table of open outboxes gets a new lock."""
    HELD_FILES = enum.auto()
    """Descriptors that the parent locked are closed."""
    CLIENTS = enum.auto()
    """Connections of the parent are closed; outboxes, workers and sessions start again."""
    AGENTS = enum.auto()
    """What is known of agents gets a new lock."""
    RUNS = enum.auto()
    """Files that show that the parent lives are closed."""
    CALLS = enum.auto()
    """Awaited calls get new threads."""
    DEFAULT = enum.auto()
    """The default tracker gets a new lock."""


_pid = os.getpid()
_running_hooks = False
_hooks: dict[Stage, Callable[[], None]] = {}
_restarters: dict[int, int] = {}
"""The thread that restarts the process of a given id. Not a lock, since one may be held by a thread
that exists only in the parent."""


def in_child(stage: Stage, hook: Callable[[], None]) -> None:
    """Have `hook` called in every forked child, at its stage and before any other call."""
    _hooks[stage] = hook


def around(before: Callable[[], None], after_in_parent: Callable[[], None]) -> None:
    """Have the functions called in the parent, before and after each fork that calls hooks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after_in_parent)


def check() -> None:
    """Run the hooks if this is a forked child in which no fork has called them.

    Takes some 0.2 µs, or 0.5 µs where system calls are traced, as in some containers.
    """
    if os.getpid() != _pid:
        _restart_unasked()


def _restart_unasked() -> None:
    pid, me = os.getpid(), get_ident()
    while _pid != pid:
        restarter = _restarters.setdefault(pid, me)
        if restarter != me:
            sleep(_POLL_SECONDS)
        elif _pid != pid and not _running_hooks:
            _restart()
        else:
            return  # called by a hook


def _restart() -> None:
    global _pid, _running_hooks
    _running_hooks = True
    try:
        for stage in sorted(_hooks):
            _hooks[stage]()
        _pid = os.getpid()
    finally:
        _running_hooks = False
        _restarters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart)
