"""The checks of ``tracker-sync doctor``. Each returns lines for the report."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import stat
import time
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tracker import canonical
from tracker.cli.beside import others_beside
from tracker.cli.context import (
    find,
    opened_to_read,
    read_owner,
    uploader_runs,
)
from tracker.cli.output import ago, duration, moment, size
from tracker.config import APIConfig, is_loopback
from tracker.config.sources import FILE, strange_variables
from tracker.errors import ConfigurationError, NotAnOutboxError, OutboxDamagedError, OutboxError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tracker.cli.command import Place
    from tracker.cli.context import Target
    from tracker.outbox import OutboxStatus

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"

_LITTLE_DISK = 100_000_000
_YEARS = range(2024, 2100)
_MOST_SKEW_SECONDS = 120
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Check:
    """One line of the report: name, status, message, and what to do if it is not OK."""

    name: str
    status: str
    message: str
    action: str = ""


def examine(place: Place) -> list[Check]:
    """Run all checks that can be run, and return their results."""
    try:
        target = find(place)
    except ConfigurationError as error:
        return [Check("configuration", PROBLEM, str(error), "fix it and run this again")]
    except OutboxError as error:
        return [Check("outbox", PROBLEM, str(error), _remedy(error))]
    config, found = _configuration(target)
    found += [
        *_folder(target.path),
        _disk(target.path),
        _sqlite_version(),
        *_outbox(target),
        *_beside(target),
    ]
    if config is None:
        return [*found, _clock(None)]
    return [*found, _clock(_server_clock(config)), *_server(target, config)]


def _configuration(target: Target) -> tuple[APIConfig | None, list[Check]]:
    """Check the settings for uploads; return them if they are valid."""
    local = target.config
    given: dict[str, Any] = {
        "config_file": local.config_file,
        "client_id": local.client_id,
        "base_url": local.destination_url,
        "outbox_path": local.outbox_path,
        "ca_bundle": local.ca_bundle,
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _ANSWER_SECONDS,
        "total_timeout": _CONNECT_SECONDS + _ANSWER_SECONDS,
    }
    try:
        trial = APIConfig(api_key="-", **given)
    except ConfigurationError as error:
        return None, [Check("configuration", PROBLEM, str(error), "fix it and run this again")]
    if trial.disabled:
        said = f"{trial.origins['disabled'].name} disables it: nothing is logged or uploaded"
        return None, [Check("configuration", WARNING, said, "unset it to log events")]
    client = f"client {local.client_id}" if target.settled else "no client id was made yet"
    whole = Check("configuration", OK, f"{local.destination_url}, {client}")
    try:
        config = APIConfig(**given)
    except ConfigurationError as error:
        return None, [whole, Check("API key", PROBLEM, str(error)), *_strange_variables()]
    key = "set" if config.api_key else "none, and none is required"
    return config, [
        whole,
        Check("API key", OK, key),
        *_readable_keys(config),
        *_strange_variables(),
    ]


def _strange_variables() -> list[Check]:
    """Warn of variables whose names are probably misspelt."""
    found = strange_variables(fields(APIConfig))
    return [
        Check("variable", WARNING, f"{name} is no setting's variable", f"did you mean {alike}?")
        for name, alike in found.items()
    ]


def _readable_keys(config: APIConfig) -> list[Check]:
    """Warn of files with keys that other users can read."""
    origins = [config.origins[name] for name in ("api_key", "chain_key", "signing_key")]
    files = sorted({each.name for each in origins if each.source == FILE})
    said = "other users can read {}, which holds a key"
    return [
        Check("key file", WARNING, said.format(file), f"chmod o-rwx {file}")
        for file in files
        if os.stat(file).st_mode & stat.S_IROTH  # noqa: PTH116 - read a moment ago
    ]


def _folder(path: Path) -> list[Check]:
    """Check that only this user can use the outbox's folder and files."""
    folder = path.parent
    if not folder.exists():
        return [Check("folder", OK, f"{folder} will be created by the first event")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            Check(
                "folder",
                PROBLEM,
                f"{folder} is not writable by this user",
                "make it writable, or set SDK_OUTBOX_PATH",
            )
        ]
    from tracker.outbox import paths

    found = [_privacy("folder", folder, 0o700)]
    for file in paths.all_of(path):
        if file.exists():
            check = _privacy("files", file, 0o600)
            if check.status != OK:
                found.append(check)
    if len(found) == 1 and path.exists():
        found.append(Check("files", OK, f"{path.name} and its companions are private"))
    return [*found, _locks(path)]


def _privacy(name: str, path: Path, wanted: int) -> Check:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        return Check(
            name,
            WARNING,
            f"{path} belongs to another user (uid {status.st_uid})",
            "run this as the application's user, so that all files belong to that user",
        )
    if mode & 0o077:
        return Check(
            name,
            WARNING,
            f"{path} has mode {mode:04o}: other users can {_access(status)}",
            f"chmod {wanted:o} {path}",
        )
    return Check(name, OK, f"{path} has mode {mode:04o}")


def _access(status: os.stat_result) -> str:
    """Return what the mode of a file or folder allows to other users, who have some permission."""
    if not stat.S_ISDIR(status.st_mode):
        return "access the events"
    if status.st_mode & 0o022:
        return "move or replace files in it"
    if status.st_mode & 0o044:
        return "list the names of files in it"
    return "tell whether a name exists in it"


def _locks(path: Path) -> Check:
    """Check that file locks exclude each other here; on some network file systems they do not."""
    from tracker.outbox import FileLock

    trial = path.with_name(f".{path.name}.doctor-{os.getpid()}")
    one, other = FileLock(trial), FileLock(trial)
    try:
        works = one.try_acquire() and not other.try_acquire()
    except (OSError, OutboxError) as error:
        return Check("file lock", PROBLEM, str(error), "put the outbox on a local disk")
    finally:
        one.close()
        other.close()
        trial.unlink(missing_ok=True)
    if works:
        return Check("file lock", OK, "works")
    return Check(
        "file lock",
        PROBLEM,
        "the same lock was taken twice",
        "put the outbox on a local disk: this file system's locks do not work",
    )


def _disk(path: Path) -> Check:
    folder = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_DISK:
        return Check(
            "free disk",
            WARNING,
            f"{size(free)} at {folder}",
            "free some space; `tracker-sync prune --days 0` removes delivered events",
        )
    return Check("free disk", OK, f"{size(free)} at {folder}")


def _sqlite_version() -> Check:
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or any(
        version[:2] == branch[:2] and version >= branch for branch in ((3, 50, 7), (3, 44, 6))
    )
    note = (
        ""
        if fixed
        else " (has the WAL-reset bug that 3.51.3, 3.50.7 and 3.44.6 fix; the tracker's write "
        "lock avoids it)"
    )
    return Check("SQLite", OK, f"{sqlite3.sqlite_version}{note}")


def _remedy(error: OutboxError) -> str:
    """Return what to do about an outbox that cannot be opened; a sound one has to stay in place."""
    if isinstance(error, NotAnOutboxError):
        return "give another path, or move the file away"
    if isinstance(error, OutboxDamagedError):
        return "keep a copy; then move the file away"
    return (
        "leave its files where they are; run this as the user who owns them, with this version or "
        "a newer one, and check the disk"
    )


def _outbox(target: Target) -> list[Check]:
    if not target.exists:
        return [Check("outbox", OK, target.absence)]
    from tracker.outbox import chain_key, checkpoint
    from tracker.outbox import status as outbox_status

    try:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = outbox_status.read(connection)
            said = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
            remembered = chain_key.read(connection).check
            seen = checkpoint.witness(connection)
    except OutboxError as error:
        return [Check("outbox", PROBLEM, str(error), _remedy(error))]
    checks = []
    if list(said) == ["ok"]:
        checks.append(Check("integrity", OK, "quick check passed; full check: tracker-sync verify"))
    else:
        checks.append(
            Check(
                "integrity",
                PROBLEM,
                "; ".join(map(str, said)),
                "keep a copy of the file, see `tracker-sync verify`, and check the disk",
            )
        )
    checks += [*_log(target.path), *_damaged(target.path)]
    checks.append(_chain_key(target.config, remembered))
    return [
        *checks,
        *_copies(found),
        *_signing_key(target.path, "" if seen is None else seen.note),
        *_queue(found, target.path, running=uploader_runs(target.path)),
        *_owner(target, found),
    ]


def _beside(target: Target) -> list[Check]:
    """Report other outboxes in the folder with pending events, or that cannot be read."""
    checks = []
    for other in others_beside(target.path):
        if other.error is not None:
            said = f"it is not known what is pending in {other.path}: {other.error}"
            advice = f"see tracker-sync --outbox {shlex.quote(str(other.path))} doctor"
        elif other.pending and not other.backup:
            said = f"{other.pending:,} pending in {other.path} of client {other.client_id}"
            advice = f"if no application sends them: {other.command}"
        else:
            continue
        checks.append(Check("other outbox", WARNING, said, advice))
    return checks


def _log(path: Path) -> list[Check]:
    """Check that SQLite's write-ahead log is not larger than usual."""
    from tracker.outbox import describe_readers, excess

    log = excess(path)
    if not log:
        return []
    return [
        Check(
            "log",
            WARNING,
            f"{path.name}-wal has {size(log)}, and grows until a program that reads an old state "
            "of the outbox ends its read",
            describe_readers(path),
        )
    ]


def _damaged(path: Path) -> list[Check]:
    from tracker.outbox import damaged_sets

    sets = damaged_sets(path)
    if not sets:
        return []
    return [
        Check(
            "damaged files",
            WARNING,
            f"the outbox was damaged; what could be read was salvaged, and the damaged files were "
            f"kept: {', '.join(map(str, sets))}",
            "check the disk; delete the files when they are no longer needed: they may contain "
            "data that was erased since, and no erasure changes them",
        )
    ]


def _chain_key(config: APIConfig, remembered: int) -> Check:
    configured = canonical.key_check(canonical.key_bytes(config.chain_key))
    if configured == remembered:
        return Check("chain key", OK, "the configured one" if configured else "none")
    if not configured:
        return Check(
            "chain key",
            WARNING,
            "the chain has a key, and none is configured here",
            "set SDK_CHAIN_KEY to that of the application; `tracker-sync verify` needs it too",
        )
    if not remembered:
        return Check("chain key", OK, "the configured one, from the next start of a tracker")
    return Check(
        "chain key",
        WARNING,
        "the configured key is not that of the chain",
        "set SDK_CHAIN_KEY to that of the application; if it was changed, keep the former one",
    )


def _copies(found: OutboxStatus) -> list[Check]:
    """Report what the newest receipt warned of."""
    from tracker.outbox import sync_state

    if found.sync.warning is None:
        return []
    return [
        Check(
            "copies",
            WARNING,
            sync_state.describe_warning(found.sync.warning),
            "`tracker-sync verify --against-collector` names the events. Use only one of the "
            "copies; "
            "make copies with `tracker-sync backup` and `restore`",
        )
    ]


def _signing_key(path: Path, seen: str) -> list[Check]:
    """Report the public key that signs checkpoints, if the outbox has one beside it.

    Args:
        path: The outbox.
        seen: The note of the newest head that the collector has signed; empty if there is none.
    """
    from tracker.evidence import keys, note
    from tracker.evidence.verifier import NotProvenError, parse_note
    from tracker.outbox import paths

    file = paths.signing_key(path)
    if not (file.exists() and keys.can_sign()):
        return []
    try:
        public_key = keys.load(file).public_key
    except ConfigurationError as error:
        remedy = "put the key back from a copy, or move the file away for a new one"
        return [Check("signing key", WARNING, str(error), remedy)]
    key = note.device_key(read_owner(path).outbox_id, public_key)
    try:
        signatures = parse_note(seen.encode()).signatures
    except NotProvenError:
        signatures = ()
    if {each.key_id for each in signatures if each.name == key.name} - {key.id}:
        return [
            Check(
                "signing key",
                WARNING,
                f"{key}; the collector signed the newest head of another key, and signs none of "
                "this one until it is told to",
                "put the key back from a copy, or see `tracker-collector outbox-key --help`",
            )
        ]
    return [Check("signing key", OK, f"{key}; note it elsewhere, to check evidence with")]


def _queue(found: OutboxStatus, path: Path, *, running: bool) -> list[Check]:
    book, sync = found.account, found.sync
    waiting = f"{book.pending:,}"
    if found.oldest_pending_ms is not None:
        waiting += f", the oldest logged {ago(found.oldest_pending_ms)}"
    if book.pending and sync.paused_because:
        pending = Check("pending", WARNING, f"{waiting}; paused: {sync.paused_because}")
    elif book.pending and sync.waits_because:
        until = "" if sync.next_attempt_ms is None else f", until {moment(sync.next_attempt_ms)}"
        pending = Check(
            "pending",
            OK,
            f"{waiting}; waits by a setting: {sync.waits_because}{until}",
            "to send them all the same: tracker-sync flush --now" if sync.is_held else "",
        )
    else:
        pending = Check("pending", OK, waiting)
    dead = Check("dead letters", OK, "0")
    if book.dead:
        dead = Check("dead letters", WARNING, f"{book.dead:,}", "tracker-sync dead list")
    uploader = _uploader(path) if running else Check("uploader", OK, "none; nothing is pending")
    if book.pending and not running:
        uploader = Check(
            "uploader",
            WARNING,
            "not running, though events are pending",
            "start the application, or `tracker-sync run`, or `tracker-sync flush`",
        )
    return [pending, dead, uploader]


def _uploader(path: Path) -> Check:
    """Report the process that holds the upload lock, and warn if it is stopped."""
    from tracker.outbox import is_stopped, paths, upload_lock_holders

    holders = upload_lock_holders(paths.upload_lock(path))
    said = "running" + (f", process {', '.join(map(str, holders))}" if holders else "")
    if any(map(is_stopped, holders)):
        return Check(
            "uploader",
            WARNING,
            f"{said}, which is stopped: nothing is uploaded until it continues or ends",
            "continue it (`kill -CONT PID`), or end it: another process then takes over",
        )
    return Check("uploader", OK, said)


def _owner(target: Target, found: OutboxStatus) -> list[Check]:
    config, owner = target.config, found.owner
    configured = (config.client_id, config.destination_url)
    if owner is None or (owner.client_id, owner.base_url) == configured:
        return []
    return [
        Check(
            "owner",
            PROBLEM,
            f"the outbox belongs to client {owner.client_id} and {owner.base_url}; the "
            f"configuration has client {config.client_id} and {config.destination_url}",
            "correct the configuration, or use `tracker-sync rebind`",
        )
    ]


def _server_clock(config: APIConfig) -> datetime | None:
    """Return the server's time, from the ``Date`` of any answer to a request without a key."""
    import requests

    from tracker.sync.transport import Adapter

    with requests.Session() as session:
        # As for uploads: no proxy is used for a server on this machine.
        session.trust_env = not is_loopback(urlsplit(config.base_url).hostname or "")
        session.mount("https://", Adapter(config.ca_bundle))
        try:
            with session.get(
                f"{config.base_url}/v1/ping",
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                proxies=_proxies(config),
                allow_redirects=False,
                stream=True,
            ) as answer:
                said = parsedate_to_datetime(answer.headers.get("date", ""))
        except (requests.RequestException, TypeError, ValueError, IndexError, OverflowError):
            return None
    return said if said.tzinfo else None


def _proxies(config: APIConfig) -> dict[str, Any] | None:
    """Return the configured proxies, so that those of the environment count no more; or None."""
    if config.proxies is None:
        return None
    return {"http": None, "https": None, "all": None, **config.proxies}


def _clock(server: datetime | None) -> Check:
    now = time.time()
    shown = moment(int(now * 1000))
    action = "set the clock (NTP); logged events keep their time"
    if time.gmtime(now).tm_year not in _YEARS:
        return Check("clock", PROBLEM, f"{shown} cannot be right", action)
    if server is None:
        return Check("clock", OK, f"{shown}, not compared with the server's")
    skew = now - server.timestamp()
    if abs(skew) > _MOST_SKEW_SECONDS:
        relation = "ahead of" if skew > 0 else "behind"
        return Check(
            "clock", WARNING, f"{shown}, {duration(abs(skew))} {relation} the server's", action
        )
    return Check("clock", OK, f"{shown}, like the server's")


def _server(target: Target, config: APIConfig) -> list[Check]:
    """Check that the server answers and accepts the key."""
    if config.protocol == "otlp":
        return [_receiver(target, config)]
    from tracker.sync.destination import Outcome
    from tracker.sync.http import HTTPDestination

    destination = HTTPDestination(config, "")
    try:
        answer = destination.ping()
    finally:
        destination.close()
    reachable = Check("server", OK, f"{config.base_url} answers")
    if answer.outcome is Outcome.DELIVERED:
        return [reachable, Check("key accepted", OK, f"for client {config.client_id}")]
    if answer.outcome is not Outcome.REFUSED:
        return [
            Check(
                "server",
                PROBLEM,
                f"{config.base_url}: {answer.cause}",
                "check SDK_BASE_URL, the network and the server; events are kept in the outbox",
            )
        ]
    if not target.settled:
        return [
            reachable,
            Check(
                "key accepted",
                WARNING,
                "unknown: no client id was made yet",
                "set SDK_CLIENT_ID to the client id of the key",
            ),
        ]
    return [
        reachable,
        Check(
            "key accepted",
            PROBLEM,
            answer.cause,
            f"set SDK_API_KEY to a key for client {config.client_id}: "
            f"`tracker-collector keys create --client {config.client_id}`",
        ),
    ]


def _receiver(target: Target, config: APIConfig) -> Check:
    """Check that an OTLP receiver accepts the span that uploads try it with, too."""
    from tracker.cli.command import extra
    from tracker.outbox import Earlier
    from tracker.sync.destination import Outcome

    if not target.exists:
        return Check("receiver", OK, f"{config.base_url}: not tried, since there is no outbox yet")
    with extra("otel"):
        from tracker.sync.otlp import OTLPDestination
    with opened_to_read(target) as outbox:
        owner = outbox.owner
        destination = OTLPDestination(
            config, owner.outbox_id, owner.created_at_ms, Earlier(outbox.snapshot)
        )
        try:
            answer = destination.ping()
        finally:
            destination.close()
    if answer.outcome is Outcome.DELIVERED:
        said = f"{config.base_url} accepts spans (the span tracker.connected was sent)"
        return Check("receiver", OK, said)
    return Check(
        "receiver",
        PROBLEM,
        f"{config.base_url}: {answer.cause}",
        "check SDK_BASE_URL, otlp_headers, the network and the receiver; events are kept in the "
        "outbox",
    )
