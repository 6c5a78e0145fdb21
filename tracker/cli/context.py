"""From options to a configuration and an open outbox."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from tracker import identity, stderr
from tracker.cli.command import WrongConfiguration
from tracker.config import APIConfig
from tracker.config.lookup import look_up
from tracker.config.otlp import protocol_of
from tracker.errors import ConfigurationError, OutboxDamagedError, OutboxError
from tracker.folders import default_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.cli.command import Place
    from tracker.outbox import Outbox, Owner, ReadOnlyOutbox

_NO_KEY = "none-needed"
"""Used in place of the API key if nothing is uploaded."""

NO_CLIENT = "none-yet"
"""Used in place of the client id if none was made yet: reading must not make one."""

OPTIONS = {
    "config_file": "config",
    "outbox_path": "outbox",
    "base_url": "base_url",
    "client_id": "client_id",
    "ca_bundle": "ca_bundle",
    "protocol": "protocol",
}
"""What every command is given, by the settings that it stands for: options, and the protocol."""


@dataclass(frozen=True)
class Target:
    """The outbox of a command.

    Attributes:
        config: The settings to open it with.
        exists: Whether the file exists and is not empty.
        settled: Whether its path is known. It is not if no client id is given and none was made
            yet, since the file is named after it.
        given: The settings that the command line has given, or the outbox itself.
    """

    config: APIConfig
    exists: bool
    settled: bool
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> Path:
        """Path of the outbox, whether it exists or not."""
        return self.config.outbox_path

    @property
    def left(self) -> str | None:
        """The message if the file is gone or empty, but its write-ahead log is not."""
        return left_of(self.path) if self.settled else None

    @property
    def absence(self) -> str:
        """The message if there is no outbox."""
        if self.settled:
            said = f"no outbox at {self.path} yet: nothing was logged"
        else:
            said = f"no outbox in {self.path.parent} yet: nothing was logged"
        others = sorted(self.path.parent.glob("*.sqlite3"))
        if others and self.path.parent == default_folder().resolve():
            names = "".join(f"\n  --outbox {other}" for other in others[:10])
            said += f" for this client id and base URL. There are others:{names}"
        return said


def find(
    place: Place,
    *,
    uploads: bool = False,
    create: bool = False,
    keyed: bool = False,
    examines: bool = False,
) -> Target:
    """Return the named outbox. Nothing is created unless `create` is True.

    An existing file that is named also determines client id and base URL if they are not given.

    Args:
        place: The values of the command line and the environment.
        uploads: Whether the command will upload. It then needs the API key, and is refused if the
            tracker is disabled.
        create: Whether a client id may be made, as by the application.
        keyed: Whether the command needs the API key though it uploads nothing.
        examines: Whether the command itself says what is wrong with an outbox.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
        OutboxError: if the file cannot be read, is not an outbox, or is gone but for its log.
    """
    given: dict[str, Any] = {name: getattr(place, OPTIONS[name]) for name in OPTIONS}
    known = named(place)
    if known["outbox_path"] is not None:
        path = _placeholder_config(given).outbox_path
        if _holds_anything(path) and None in known.values():
            kept = read_owner(path)
            owner = {"client_id": kept.client_id, "base_url": kept.base_url}
            given |= {name: owner[name] for name in owner if known[name] is None}
            if known["base_url"] is None:
                given["protocol"] = protocol_of(kept.base_url)
            known |= {name: owner[name] for name in owner if known[name] is None}
    settled = True
    if known["client_id"] is None and not create:
        folder = _placeholder_config(given).outbox_path.parent
        if not (folder / identity.FILE_NAME).exists():
            settled = known["outbox_path"] is not None
            given["client_id"] = NO_CLIENT
    config = _uploading_config(given) if uploads else _local_config(given, keyed=keyed)
    if config.debug:
        stderr.show()
    target = Target(config, settled and _holds_anything(config.outbox_path), settled, given)
    if target.left and not (examines or create):
        raise OutboxError(target.left)
    return target


def left_of(path: Path) -> str | None:
    """Return the message if an outbox is gone or empty, but its write-ahead log is not."""
    from tracker.outbox import paths

    if _holds_anything(path) or not paths.log_bytes(path):
        return None
    return (
        f"the outbox {path} is gone, but its write-ahead log is not, and may hold events: "
        "the next application that opens it, or `tracker-sync run`, makes a new outbox of them"
    )


def folder_of(place: Place) -> Path:
    """Return the folder of the outbox, whether one is there or not.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
    """
    given: dict[str, Any] = {name: getattr(place, OPTIONS[name]) for name in OPTIONS}
    return _local_config({**given, "client_id": NO_CLIENT}).outbox_path.parent


def named(place: Place) -> dict[str, Any]:
    """Return path, client id and base URL of the outbox, as far as something says them.

    Raises:
        ConfigurationError: if the configuration file cannot be read.
    """
    found = look_up(place.config, "outbox_path", "client_id", "base_url")
    options = {name: getattr(place, OPTIONS[name]) for name in found}
    return {name: found[name] if options[name] is None else options[name] for name in found}


def check_uploads(place: Place) -> None:
    """Check what every upload needs, whichever outbox it is from.

    Raises:
        ConfigurationError: if a setting is missing or invalid, or the tracker is disabled.
    """
    given: dict[str, Any] = {name: getattr(place, OPTIONS[name]) for name in OPTIONS}
    _uploading_config({**given, "client_id": NO_CLIENT})


def _uploading_config(given: dict[str, Any]) -> APIConfig:
    config = APIConfig(**given)
    if config.disabled:
        raise ConfigurationError(
            f"the tracker is disabled by {config.origins['disabled'].name}: nothing is uploaded. "
            "Unset it and try again"
        )
    return config


def _placeholder_config(given: dict[str, Any]) -> APIConfig:
    return _local_config({**given, "client_id": given["client_id"] or NO_CLIENT})


def _local_config(given: dict[str, Any], *, keyed: bool = False) -> APIConfig:
    """Return settings for a command without network access: http is allowed.

    There is no API key, unless the command is `keyed`: then it is required.
    """
    if not keyed:
        given = {**given, "api_key": _NO_KEY}
    return APIConfig(disabled=False, allow_insecure_http=True, **given)


def _holds_anything(path: Path) -> bool:
    """Return True if there is something at `path` other than an empty file."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OutboxError(f"the outbox {path} cannot be read: {error.strerror}") from error
    return not stat.S_ISREG(found.st_mode) or found.st_size > 0


def read_owner(path: Path) -> Owner:
    """Return the owner of the outbox, whatever its schema revision.

    Raises:
        OutboxError: if it cannot be read or is not an outbox.
    """
    return _peek(path)[0]


def read_revision(path: Path) -> str | None:
    """Return the schema revision of the file, without migrating it.

    Raises:
        OutboxError: if it cannot be read or is not an outbox.
    """
    return _peek(path)[1]


def _peek(path: Path) -> tuple[Owner, str | None]:
    from sqlalchemy.exc import SQLAlchemyError

    from tracker.outbox import create, damage, errors, status
    from tracker.outbox import identity as identities

    try:
        with connected(path) as connection:
            create.is_current(connection)
            return identities.read(connection), status.revision(connection)
    except (SQLAlchemyError, OSError, OutboxDamagedError) as error:
        explained = errors.explain(path, error)
        if not isinstance(explained, OutboxDamagedError):
            raise explained from error
        return damage.owner_of_damaged(path), None


def connected(path: Path) -> AbstractContextManager[Connection]:
    """Return a connection for reading an existing outbox, whatever its schema revision.

    Raises:
        OutboxError: if it is not an outbox; raised on entering at the latest.
    """
    from tracker.outbox import create, make_engine, read_only

    if read_only.is_read_only(path):
        return read_only.connected(path)
    create.create_file(path)  # the file exists: this refuses folders, links and other files
    return make_engine(path, "full", writer=False).connect()


@contextmanager
def opened_to_read(target: Target) -> Iterator[Outbox | ReadOnlyOutbox]:
    """Yield the outbox like `opened`, or without creating files if it cannot be written.

    Raises:
        OutboxError: if it cannot be opened.
    """
    from tracker.outbox import ReadOnlyOutbox, is_read_only

    if is_read_only(target.path):
        yield ReadOnlyOutbox(target.path)
    else:
        with opened(target) as outbox:
            yield outbox


@contextmanager
def opened(target: Target) -> Iterator[Outbox]:
    """Yield the outbox, whatever its owner. The file is migrated if it is from an older version.

    Raises:
        OutboxError: if it cannot be opened.
    """
    from tracker.outbox import Outbox

    outbox = Outbox(target.config, check_owner=False)
    try:
        yield outbox
    finally:
        outbox.close()


@contextmanager
def opened_to_change(target: Target) -> Iterator[Outbox]:
    """Yield the outbox as `opened` does, but refuse a backup.

    Raises:
        OutboxError: if it cannot be opened.
        ConfigurationError: if it is a backup.
    """
    from tracker.outbox import backup

    with opened(target) as outbox:
        with outbox.reading() as connection:
            backup.refuse(connection, target.path)
        yield outbox


def existing(place: Place, *, keyed: bool = False) -> Target:
    """Return the named outbox, which must exist.

    Args:
        place: The values of the command line and the environment.
        keyed: As for `find`.

    Raises:
        ClickException: if it does not; exit code 1.
        WrongConfiguration: if the command is `keyed`, and the other side is no collector.
    """
    target = find(place, keyed=keyed)
    if not target.exists:
        raise click.ClickException(target.absence)
    if keyed and target.config.protocol != "tracker":
        # It would be sealed with no key, and a file that anybody can make would mark events.
        raise WrongConfiguration(
            f"{target.config.base_url} is an OTLP receiver: only a collector takes events by hand. "
            "Send them with `tracker-sync flush`, or give the outbox to a collector with "
            "`tracker-sync rebind`"
        )
    return target


def spare(target: Target, output: Path | None) -> None:
    """Refuse to write a command's output over a file of the outbox, or over any database.

    Raises:
        UsageError: if the output, which may replace a file, is one.
        ClickException: if what is there cannot be read.
    """
    from tracker.outbox import paths
    from tracker.whole_file import is_database

    if output is None:
        return
    own = [*paths.all_of(target.path), paths.signing_key(target.path)]
    if _placed(output) in map(_placed, own):
        raise click.UsageError(f"{output} is a file of the outbox; give another name")
    try:
        database = is_database(output)
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from error
    if database:  # such as the outbox of another client, with what is pending there
        raise click.UsageError(f"{output} is a database, which is not replaced; give another name")


def _placed(path: Path) -> Path:
    return path.parent.resolve() / path.name


def uploader_runs(path: Path) -> bool:
    """Return True if a process uploads from this outbox, that is if its upload lock is held.

    Also return False if this user is not allowed to check the lock.
    """
    from tracker.outbox import file_lock, paths

    try:
        return file_lock.is_held(paths.upload_lock(path))
    except PermissionError:
        return False
