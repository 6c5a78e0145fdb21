"""``tracker-collector forward``: send what arrives on to an OTLP receiver."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.addresses import check_url, is_unsafe
from tracker.collector.claim import ClaimedError
from tracker.collector.database import StorageError
from tracker.collector.forwarding import positions
from tracker.collector.forwarding.positions import OvertakenError, Status, Target
from tracker.collector.forwarding.stop import Stop
from tracker.collector.keys import check_client_id
from tracker.collector.occasionally import Occasionally
from tracker.collector.options import database_option, opened
from tracker.collector.tables import MAX_ID_LENGTH
from tracker.delivery.headers import headers_of_lines, headers_of_pairs, know_headers
from tracker.errors import ConfigurationError
from tracker.since import Since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracker.collector.forwarding.forwarder import Forwarder
    from tracker.collector.store import Store

logger = logging.getLogger(__name__)

_ENDPOINT, _HEADERS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"
_SKIPPED = ("otel.span_started",)
_TRACES = "/v1/traces"
_LOOK_SECONDS = 3_600.0
_STORAGE_SECONDS = 5.0
"""How long to wait after the database has failed."""


@dataclass(frozen=True)
class _Receiver:
    """Where events go; what `HTTPClient` asks of a server."""

    base_url: str
    ca_bundle: Path | None
    headers: Mapping[str, str]
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    total_timeout: float = 60.0
    proxies: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Wanted:
    """What is to be forwarded.

    Attributes:
        target: The target.
        receiver: Where events go.
        logs: Whether log records are sent as such.
        skip: Types of events that are not sent.
        once: Whether to end when everything is forwarded.
        since_ms: The time, Unix milliseconds, from which on to send again, or None.
    """

    target: Target
    receiver: _Receiver
    logs: bool
    skip: tuple[str, ...]
    once: bool
    since_ms: int | None


@click.command()
@click.option("--to", type=click.Choice(["otlp"]), help="The protocol of the receiver.")
@click.option(
    "--endpoint",
    metavar="URL",
    envvar=_ENDPOINT,
    show_envvar=True,
    help="Address of the receiver; /v1/traces and /v1/logs are appended.",
)
@click.option(
    "--headers",
    "headers_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of headers for every request, a line each, as in `Authorization: Bearer …`.  "
    f"[default: those in {_HEADERS}, name=value,name=value]",
)
@click.option("--client", "client_id", help="Forward only the events of this client.")
@click.option(
    "--name",
    help="What the position is kept under: two projects of one receiver need two names.  "
    "[default: the address]",
)
@click.option(
    "--once/--follow",
    default=False,
    help="End when everything is forwarded, or when that fails; or go on until SIGTERM.  "
    "[default: follow]",
)
@click.option(
    "--resend-since",
    "since_ms",
    type=Since(),
    metavar="WHEN",
    help="First go back to what was received since this time, such as 2026-11-01T12:00, or age, "
    "such as 2h: for a receiver that lost what it had taken.",
)
@click.option("--logs", is_flag=True, help="Send log records as such, to a receiver of both.")
@click.option(
    "--skip",
    multiple=True,
    metavar="TYPE",
    default=_SKIPPED,
    show_default=True,
    help="Do not send events of this type, or of all that begin as in integrity.*; repeatable.",
)
@click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Further CA certificates (PEM).",
)
@click.option(
    "--allow-insecure-http", is_flag=True, help="Allow plain http to another host as well."
)
@click.option("--status", "show", is_flag=True, help="Print how things stand, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@database_option
def forward(
    to: str | None,
    endpoint: str | None,
    headers_file: Path | None,
    client_id: str | None,
    name: str | None,
    since_ms: int | None,
    logs: bool,
    skip: tuple[str, ...],
    ca_bundle: Path | None,
    show: bool,
    as_json: bool,
    database: str,
    *,
    once: bool,
    allow_insecure_http: bool,
) -> None:
    """Send what arrives on to a receiver of OpenTelemetry (OTLP over HTTP).

    Each event becomes the spans that its own device would send, in the order of arrival, at least
    once. The position is kept in the database, so that it goes on where it ended.
    """
    if show:
        with opened(database) as store, store.reading() as connection:
            found = positions.statuses(connection)
        return _print(found, as_json=as_json)
    if to is None or endpoint is None:
        raise click.UsageError("give --to otlp and --endpoint URL, or --status")
    url = _checked_url(endpoint, allow_insecure_http=allow_insecure_http)
    receiver = _Receiver(url, ca_bundle, _read_headers(headers_file))
    wanted = _Wanted(_target(name or url, client_id), receiver, logs, skip, once, since_ms)
    _log_to_stderr()
    with opened(database) as store:
        _forward(store, wanted)
    return None


# --- arguments ------------------------------------------------------------------------------------


def _checked_url(endpoint: str, *, allow_insecure_http: bool) -> str:
    try:
        url = check_url("--endpoint", endpoint, "give the key in a header")
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    if is_unsafe(url) and not allow_insecure_http:
        raise click.UsageError(
            f"--endpoint is {url!r}: plain http would send keys and events unencrypted to another "
            "host. Use https://, or give --allow-insecure-http if the network is trusted"
        )
    return url.removesuffix(_TRACES)


def _read_headers(file: Path | None) -> Mapping[str, str]:
    try:
        if file is None:
            headers = headers_of_pairs(_HEADERS, os.environ.get(_HEADERS, ""))
        else:
            headers = headers_of_lines(f"the file {file}", file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the file {file} is not UTF-8") from error
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    know_headers(headers)
    return headers


def _target(name: str, client_id: str | None) -> Target:
    if not name.isprintable() or len(name) > MAX_ID_LENGTH:
        raise click.UsageError(f"--name must be {MAX_ID_LENGTH} printable characters at most")
    try:
        if client_id is not None:
            check_client_id(client_id)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--client") from error
    return Target(name, client_id or "")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.addFilter(Occasionally())
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[handler],
    )


# --- forwarding -----------------------------------------------------------------------------------


def _forward(store: Store, wanted: _Wanted) -> None:
    """Forward until everything is, or until a signal comes; exit with 1 if that fails."""
    since_ms = wanted.since_ms
    with Stop() as stop:
        while not stop:
            try:
                with store.claimed(f"forwarding to {' '.join(wanted.target)}") as check:
                    created_at_ms = _begin(store, wanted, since_ms)
                    since_ms = None
                    with _forwarder(store, wanted, created_at_ms) as forwarder:
                        return _run(forwarder, wanted, check, stop)
            except (ClaimedError, OvertakenError) as error:
                raise click.ClickException(
                    f"another process forwards events to {wanted.target.name} already"
                ) from error
            except StorageError as error:
                if wanted.once:
                    raise
                logger.warning("nothing can be forwarded, will retry: %s", error)
                stop.wait(_STORAGE_SECONDS)
    return None


def _begin(store: Store, wanted: _Wanted, since_ms: int | None) -> int:
    """Note the target, and go back to a time if one is given; return when it was first used."""
    target, url, before = wanted.target, wanted.receiver.base_url, None
    if since_ms is not None:
        with store.reading(_LOOK_SECONDS) as connection:
            before = positions.before_first(connection, since_ms)
    with store.writing(f"position of {target.name}") as connection:
        created_at_ms = positions.begin(connection, target, url, time.time_ns() // 1_000_000)
        if before is not None:
            positions.rewind(connection, target, before)
        position = positions.position(connection, target)
    click.echo(f"forwarding to {url}, from position {position:,}", err=True)
    return created_at_ms


def _run(forwarder: Forwarder, wanted: _Wanted, check: Callable[[], None], stop: Stop) -> None:
    while not stop:
        check()
        pause = forwarder.step()
        if wanted.once and pause.idle:
            return
        if wanted.once and pause.problem:
            raise click.ClickException(f"nothing can be forwarded: {pause.problem}")
        if pause.seconds:
            stop.wait(pause.seconds)
    click.echo("stopped", err=True)


@contextmanager
def _forwarder(store: Store, wanted: _Wanted, created_at_ms: int) -> Iterator[Forwarder]:
    """Lend a forwarder, whose connections are closed afterwards."""
    try:
        from tracker.collector.forwarding.forwarder import Forwarder
        from tracker.collector.forwarding.translators import Translators, probe_of
        from tracker.delivery.http_client import HTTPClient
        from tracker.otlp.sender import MOST_ANSWER_BYTES, Sender
    except ImportError as error:  # an optional extra
        click.echo(
            "forwarding needs the extras: pip install 'agent-tracking-sdk[collector,otel]'",
            err=True,
        )
        raise SystemExit(2) from error
    client = HTTPClient(wanted.receiver, wanted.receiver.headers, MOST_ANSWER_BYTES)
    with closing(client):
        translators = Translators(logs=wanted.logs)
        probe = probe_of(wanted.target, created_at_ms)
        sender = Sender(client, translators, probe, wanted.skip)
        yield Forwarder(store, wanted.target, sender, translators)


# --- status ---------------------------------------------------------------------------------------


def _print(found: list[Status], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_as_dict(status) for status in found]))
        return
    for status in found:
        whose = f" (client {status.client_id})" if status.client_id else ""
        at = "" if status.endpoint == status.name else f" at {status.endpoint}"
        least = "at least " if status.behind == positions.MOST_COUNTED else ""
        click.echo(f"{status.name}{at}{whose}: {least}{_events(status.behind)} behind")
        click.echo(
            f"  position {status.position:,}: {status.sent:,} sent, {status.skipped:,} skipped, "
            f"{status.set_aside:,} set aside"
        )
        if status.problem:
            click.echo(f"  problem: {status.problem}")
        for each in status.newest_set_aside:
            click.echo(f"  {each.code}: {each.event_id} of {each.client_id} ({each.type})")
    if not found:
        click.echo("nothing was forwarded so far")


def _as_dict(status: Status) -> dict[str, Any]:
    newest = [each._asdict() for each in status.newest_set_aside]
    return {**asdict(status), "newest_set_aside": newest}


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"
