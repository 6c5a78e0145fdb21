"""Create, recognise and migrate an outbox file. The only module that imports alembic.

Importing alembic takes as long as importing SQLAlchemy itself, so an up-to-date file is recognised
by plain SQL, without loading alembic.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import threading
import time
import uuid
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from tracker import ownership
from tracker._version import __version__
from tracker.errors import (
    NotAnOutboxError,
    OutboxDamagedError,
    OutboxError,
    SchemaVersionError,
)
from tracker.outbox.files import paths
from tracker.outbox.files.open_files import check_links
from tracker.outbox.schema import guard, tables
from tracker.outbox.sqlite.engine import PAGE_BYTES
from tracker.whole_file import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable

    from alembic.config import Config
    from sqlalchemy import Connection, Engine

_REVISION = re.compile("[0-9A-Za-z_]{1,32}")
"""What a schema revision of any version may look like; any other text is damage."""
_UNSYNCABLE = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""Errors for a folder that this user may not open, or a file system that does not sync folders."""

_migrating = threading.Lock()
"""Alembic keeps its context in module globals, so a process runs one migration at a time."""


def create_file(path: Path, like: Path | None = None) -> None:
    """Create the folder (0700) and an empty file (0600) if they do not exist.

    Args:
        path: The path of the file.
        like: The file whose owner and mode it gets.

    Raises:
        NotAnOutboxError: if the path is a folder, a link or a special file, or one of SQLite's
            own files beside it is a link.
        OutboxError: if the folder or file cannot be created or written, or if the file has a
            second name or is mounted by itself.
    """
    try:
        ownership.create_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            os.close(ownership.create(path, like or path))
        writable = os.access(path, os.R_OK | os.W_OK)
    except OSError as error:
        raise OutboxError(_unwritable(path, error.strerror)) from error
    check_file(path)
    if not writable:
        raise OutboxError(_unwritable(path, "Permission denied"))


def check_file(path: Path) -> None:
    """Check, from the folder entry, that there may be an outbox at `path`.

    Raises:
        NotAnOutboxError: as `create_file`.
        OutboxError: if the file cannot be examined, has a second name, or is mounted by itself.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise OutboxError(f"the outbox {path} cannot be read: {error.strerror}") from error
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise NotAnOutboxError(f"{path} is a folder; give the path of a file in it")
    if stat.S_ISLNK(mode):
        raise NotAnOutboxError(f"{path} is a symbolic link; give the path of the file itself")
    if not stat.S_ISREG(mode):
        raise NotAnOutboxError(f"{path} is not a regular file; give the path of one")
    check_links(path, found.st_nlink)
    _check_mount(path)
    for beside in (paths.beside(path, suffix) for suffix in (*paths.COMPANIONS, paths.JOURNAL)):
        if beside.is_symlink():
            raise NotAnOutboxError(
                f"{beside} is a symbolic link, and SQLite would write through it; remove it"
            )


def _check_mount(path: Path) -> None:
    """Refuse a file that is mounted by itself, if the system shows its mounts.

    Two containers that share only the file would have a separate log and lock each.

    Raises:
        OutboxError: if it is mounted by itself.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return
    real = os.fsencode(path.absolute())
    for octal in (b"\\", b" ", b"\t", b"\n"):
        real = real.replace(octal, b"\\%03o" % ord(octal))
    if any(line.split(b" ", 5)[4:5] == [real] for line in mounts.splitlines()):
        raise OutboxError(
            f"the outbox {path} is a mount point: only this one file is shared, but not its log "
            "and lock, so events would be lost. Mount the folder that contains it instead"
        )


def _unwritable(path: Path, reason: str | None) -> str:
    return (
        f"the outbox {path} cannot be opened for writing: {reason}. "
        "Make its folder writable for this user, or set SDK_OUTBOX_PATH"
    )


def recognise(path: Path) -> None:
    """Check from the first bytes of a file that it is an outbox, or empty.

    SQLite is not used for this: merely opening another program's database could write its log
    back. Must not be called for a file that this process has open: closing any descriptor of a file
    releases all POSIX locks of the process on it, including SQLite's.

    Raises:
        NotAnOutboxError: if the file is anything else.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if header and not header.startswith(b"SQLite format 3\0"):
        raise NotAnOutboxError(
            f"{path} is not a SQLite file, or its header is damaged; it was not changed. "
            "Set SDK_OUTBOX_PATH to another file, or move this one away"
        )
    # Offset 68 of the header: "application ID" (sqlite.org/fileformat.html, section 1.3).
    if header and int.from_bytes(header[68:72], "big") != tables.APPLICATION_ID:
        raise NotAnOutboxError(
            f"{path} is another program's SQLite database; it was not changed. "
            "Set SDK_OUTBOX_PATH to another file"
        )


def is_current(connection: Connection) -> bool:
    """Return True if the file is an outbox at `tables.HEAD`, False if it is empty or older.

    Raises:
        SchemaVersionError: if this version does not know the file's schema.
        OutboxDamagedError: if its bookkeeping has values of the wrong type.
        NotAnOutboxError: if somebody has added something to its schema.
    """
    path = connection.engine.url.database
    # If its creation was interrupted by a crash, it may have no revision yet.
    if not guard.check_revision_table(connection):
        guard.check(connection, at_head=False)
        return False
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision == tables.HEAD:
        guard.check(connection, at_head=True)
        return True
    if not _REVISION.fullmatch(str(revision)):
        guard.check(connection, at_head=True)
        raise OutboxDamagedError(f"the outbox {path} is damaged: its schema revision is not valid")
    if revision not in known_revisions():
        raise SchemaVersionError(
            f"{path} has the schema revision {revision!r}, which tracker {__version__} "
            "does not know; it was not changed. Install the newer agent-tracking-sdk "
            "that wrote it: pip install --upgrade agent-tracking-sdk"
        )
    guard.check(connection, at_head=False)
    return False


def bring_up_to_date(engine: Engine, client_id: str, base_url: str) -> None:
    """Create the schema in an empty file, or migrate an older one.

    The caller holds the outbox's write lock, so no other process does the same at the same time.

    Raises:
        NotAnOutboxError: if the schema after a migration is not the one that tracker creates.
    """
    with engine.connect() as connection:
        if guard.check_revision_table(connection):
            migrate(connection)
        else:
            _create(connection, client_id, base_url)
        guard.check(connection, at_head=True)


def _sync_folders(path: Path) -> None:
    """Sync the folders, so that the names of the outbox and of its folders survive a power cut.

    It is not known which of the folders are new, and whether the process that created one lived
    long enough to sync it. So all are synced, once in an outbox's life: by the process that creates
    the schema, before any process can store an event. A folder that this user may not open was not
    created by this user.

    Raises:
        OSError: if a folder cannot be synced.
    """
    device = path.parent.stat().st_dev
    for folder in path.absolute().parents:
        if folder.stat().st_dev != device:  # another file system, on which this one is mounted
            return
        try:
            sync_folder(folder)
        except OSError as error:
            if error.errno not in _UNSYNCABLE:
                raise


def _create(connection: Connection, client_id: str, base_url: str) -> None:
    _sync_folders(Path(str(connection.engine.url.database)))
    # The first page has the application id from the start, and in the file itself rather than its
    # log: `recognise` may read it at any moment. (BEGIN IMMEDIATE would lose auto_vacuum.)
    connection.exec_driver_sql(f"PRAGMA page_size={PAGE_BYTES}")
    connection.exec_driver_sql("BEGIN")
    connection.exec_driver_sql("PRAGMA auto_vacuum=INCREMENTAL")
    connection.exec_driver_sql(f"PRAGMA application_id={tables.APPLICATION_ID}")
    connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        _fill(connection, client_id, base_url)
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _fill(connection: Connection, client_id: str, base_url: str) -> None:
    for statement in guard.statements(tables.metadata).values():
        connection.exec_driver_sql(statement)
    _identify(connection, client_id, base_url)
    connection.execute(tables.sync_state.insert().values(id=1))
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (tables.HEAD,))


def _identify(connection: Connection, client_id: str, base_url: str) -> None:
    connection.execute(
        tables.identity.insert().values(
            id=1,
            outbox_id=str(uuid.uuid4()),
            client_id=client_id,
            base_url=base_url,
            created_at_ms=time.time_ns() // 1_000_000,
        )
    )


@contextlib.contextmanager
def empty_outbox(client_id: str = "nobody", base_url: str = "") -> Iterator[Connection]:
    """Lend a connection to an empty outbox in memory."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            _fill(connection, client_id, base_url)
            connection.commit()
            yield connection
    finally:
        engine.dispose()


def migrate(connection: Connection) -> None:
    """Migrate an older outbox to `tables.HEAD`, with all rows, in one transaction."""
    from alembic import command

    with _migrating, scripts_folder() as folder:
        config = _alembic_config(folder)
        config.attributes["connection"] = connection
        command.upgrade(config, tables.HEAD)


def known_revisions() -> list[str]:
    """Return the revisions of the migration scripts, newest first."""
    from alembic.script import ScriptDirectory

    with _migrating, scripts_folder() as folder:
        scripts = ScriptDirectory.from_config(_alembic_config(folder))
        return [script.revision for script in scripts.walk_revisions()]


@contextlib.contextmanager
def scripts_folder() -> Iterator[Path]:
    """Lend the folder of the migration scripts: inside an installed package, beside a checkout's.

    In a zipped application it is a temporary copy, because alembic can only run files.

    Raises:
        OutboxError: if the scripts are missing.
    """
    package = files("tracker")
    scripts = package / "_migrations"
    if not scripts.is_dir() and isinstance(package, Path):
        checkout = package.parent
        if (checkout / "pyproject.toml").is_file():
            scripts = checkout / "migrations"
    if not scripts.is_dir():
        raise OutboxError(
            f"the migration scripts are missing from {package}; reinstall agent-tracking-sdk"
        )
    if isinstance(scripts, Path):
        yield scripts
        return
    with tempfile.TemporaryDirectory() as copied:
        _copy(scripts, Path(copied))
        yield Path(copied)


def _copy(source: Traversable, target: Path) -> None:
    for item in source.iterdir():
        if item.is_dir():
            (target / item.name).mkdir()
            _copy(item, target / item.name)
        else:
            (target / item.name).write_bytes(item.read_bytes())


def _alembic_config(folder: Path) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
