"""Limits of open files and connections."""

from __future__ import annotations

import resource

_FOR_THE_REST = 128
"""Descriptors reserved for the database's files, the listening socket and the log."""


def allow_all_files() -> None:
    """Raise the soft limit of open files to the hard one, as servers do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Return the maximum number of connections: the rest of the limit, at least half of it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(soft - _FOR_THE_REST, soft // 2)
