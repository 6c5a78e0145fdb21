"""An SQLite file: whether it is whole, whose it is, and where it lies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from tracker.collector.doctor import contents
from tracker.collector.doctor.finding import Finding
from tracker.collector.doctor.space import space
from tracker.errors import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTS = Path("/proc/self/mounts")
_REMOTE = (
    *("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs"),
    *("fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "beegfs", "gpfs", "virtiofs"),
)
_MIB = 2**20
_DAMAGED = (
    "stop the collector, keep a copy of all its files, and go on with the newest good copy or what "
    "sqlite3's .recover saves; devices send again what that lacks, with tracker-sync resend"
)


def check(path: Path) -> Iterator[Finding]:
    """Check a file without changing it."""
    if not path.is_file():
        yield Finding(
            "file",
            "problem",
            f"there is no file {readable(str(path))}",
            "start a collector, which makes it",
        )
        return
    yield permissions(path)
    yield from network(path)
    try:
        yield _space(path)
        with closing(_opened(path)) as connection:
            yield from _content(connection)
    except OSError as error:
        yield Finding("file", "problem", f"{readable(str(path))}: {error.strerror or error}")
    except (sqlite3.Error, SQLAlchemyError) as error:
        message = f"it cannot be read: {getattr(error, 'orig', None) or error}"
        yield Finding("file", "problem", message, _DAMAGED)


def permissions(path: Path) -> Finding:
    """Check that nobody else reads or writes the file."""
    loose = []
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            loose.append(file.name)
    if loose:
        names = ", ".join(loose)
        return Finding(
            "permissions",
            "warning",
            f"others may open {names}",
            f"chmod go= {readable(path.name)}*",
        )
    return Finding("permissions", "ok", "the file is for its owner alone")


def network(path: Path, mounts: Path = _MOUNTS) -> Iterator[Finding]:
    """Check that the file is on a disk of this machine, where the system tells."""
    kind = _file_system(path.resolve(), mounts)
    if kind is not None and kind.startswith(_REMOTE):
        yield Finding(
            "file system",
            "problem",
            f"it is {kind}, over a network: locks and flushes may not be what SQLite relies on",
            "keep the file on a disk of this machine, or use PostgreSQL",
        )
    elif kind is not None:
        yield Finding("file system", "ok", kind)


def _file_system(path: Path, mounts: Path) -> str | None:
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        _, where, kind, *_ = line.split(" ")
        folder = Path(where.encode().decode("unicode_escape"))
        if path.is_relative_to(folder) and (found is None or len(folder.parts) >= found[0]):
            found = (len(folder.parts), kind)
    return None if found is None else found[1]


def _space(path: Path) -> Finding:
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal")]
    size = sum(file.stat().st_size for file in files if file.exists())
    return space(f"it takes {size / _MIB:,.1f} MiB", shutil.disk_usage(path.parent))


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, isolation_level=None
    )


def _content(connection: sqlite3.Connection) -> Iterator[Finding]:
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    if journal == "wal":
        yield Finding("journal", "ok", "wal")
    else:
        yield Finding(
            "journal",
            "warning",
            f"it is {journal}: another program has changed it",
            "start a collector, which sets it to wal",
        )
    try:
        wrong = [text for (text,) in connection.execute("PRAGMA quick_check(3)") if text != "ok"]
    except sqlite3.DatabaseError as error:
        wrong = [str(error)]
    if wrong:
        yield Finding(
            "quick_check",
            "problem",
            f"the file is damaged: {'; '.join(wrong)}",
            _DAMAGED,
        )
        return
    yield Finding("quick_check", "ok", "the file is whole")
    engine = sqlalchemy.create_engine(
        "sqlite://", creator=lambda: connection, poolclass=sqlalchemy.StaticPool
    )
    with engine.connect() as connected:
        yield from contents.schema(connected)
        yield from contents.expiring_keys(connected)
