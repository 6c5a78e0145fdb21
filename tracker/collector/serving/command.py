"""``tracker-collector serve``: receive events over HTTP until SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from tracker.collector.descriptors import allow_all_files
from tracker.collector.engine import BATCHES
from tracker.collector.options import database_option, witness_options
from tracker.collector.serving.listening import address_of, listen, ui_hosts
from tracker.collector.serving.log_lines import LogFormat, Voice
from tracker.collector.serving.serving import SHUTDOWN_SECONDS, Serving
from tracker.collector.serving.workers import Workers
from tracker.collector.settings import Settings
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tracker.collector.replication import Durability

_KILL_SECONDS = 5.0
"""How long a worker may take beyond what its requests may, before it is killed."""
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which workers add up; it is read on import."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 uses a free one.",
)
@database_option
@click.option(
    "--direct-database",
    "direct",
    metavar="URL",
    envvar="COLLECTOR_DIRECT_DATABASE_URL",
    show_envvar=True,
    show_default="the database",
    help="URL of the same PostgreSQL database without PgBouncer between: by LISTEN there, changes "
    "of API keys are heard, and keys need not be looked up for each request.",
)
@witness_options
@click.option(
    "--tsa",
    metavar="URL",
    envvar="COLLECTOR_TSA",
    show_envvar=True,
    help="Address of a time stamp authority (RFC 3161), which stamps an outbox's newest cosigned "
    "head once an hour.",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    default=Settings.requests_per_minute,
    show_default=True,
    help="Maximum number of batches per minute and API key.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many such servers share the clients: each allows its part of --rate.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that serve on the port, with PostgreSQL.",
)
@click.option(
    "--pool",
    type=click.IntRange(1, 24),
    default=BATCHES,
    show_default=True,
    help="Batches that a process stores at the same time, each on a connection of its own.",
)
@click.option(
    "--together",
    type=click.IntRange(1, 100),
    default=Settings.batches_together,
    show_default=True,
    help="Small batches that are stored in one transaction, at most, with PostgreSQL; 1 stores "
    "each alone.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=Settings.max_requests[0],
    show_default=True,
    help="Batches that a process receives and stores at the same time; more are answered 503 "
    "before they are read.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    help="After SIGTERM, how long to take batches while /readyz says 503, so that a load balancer "
    "looks elsewhere.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port for Prometheus, at the same address; needs the extra [prometheus].",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or one JSON object a line.",
)
@click.option(
    "--durability",
    type=click.Choice(["local", "replicated"]),
    default=None,
    show_default="replicated where synchronous_standby_names is set, otherwise local",
    help="What a receipt guarantees: stored on this server, or on a synchronous standby as well.",
)
@click.option(
    "--ui/--no-ui", "ui", default=True, show_default=True, help="Serve pages for people at /ui/."
)
@click.option(
    "--ui-host",
    "ui_names",
    multiple=True,
    metavar="NAME",
    envvar="COLLECTOR_UI_HOSTS",
    show_envvar=True,
    help="A name, with its port if that is not the usual one, by which browsers reach the pages, "
    "as in tracker.example.com; repeatable. Without it: only from this machine.",
)
@click.option(
    "--migrate/--no-migrate",
    "migrates",
    default=True,
    show_default=True,
    help="Add to the database what it lacks, as far as that takes no time, and partitions for the "
    "coming months; or change nothing, and refuse to start if tables or columns are missing.",
)
def serve(
    host: str,
    port: int,
    database: str,
    direct: str | None,
    key_file: Path | None,
    witness_name: str,
    tsa: str | None,
    rate: int,
    replicas: int,
    workers: int,
    pool: int,
    together: int,
    in_flight: int,
    drain_seconds: float,
    metrics_port: int | None,
    log_format: LogFormat,
    durability: Durability | None,
    *,
    ui: bool,
    ui_names: tuple[str, ...],
    migrates: bool,
) -> None:
    """Listen for batches until SIGTERM or Ctrl+C."""
    voice = Voice(log_format)
    voice.set_up()
    allow_all_files()
    # uvicorn shuts down in order after these signals and then raises them again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    if rate < replicas * workers:
        raise click.UsageError(f"--rate {rate} cannot be shared by {replicas * workers} processes")
    with voice.telling_errors(), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        exposed = None
        if metrics_port is not None:
            _check_prometheus()
            exposed = stack.enter_context(listen(host, metrics_port))
        names = ui_hosts(listener, ui_names) if ui and _has_templates(voice) else None
        serving = Serving(
            database=database,
            direct=direct,
            durability=durability,
            key_file=key_file,
            witness_name=witness_name,
            tsa=tsa,
            settings=Settings(
                requests_per_minute=rate,
                processes=replicas * workers,
                max_requests=(in_flight, min(Settings.max_requests[1], max(1, in_flight // 2))),
                concurrent_batches=(pool, max(1, pool // 4)),
                batches_together=together,
            ),
            ui_hosts=names,
            drain_seconds=drain_seconds,
            voice=voice,
            migrates=migrates,
        )
        _check_database(serving, workers)
        address = address_of(host, listener)
        metrics = None if exposed is None else f"{address_of(host, exposed)}/metrics"

        def started() -> None:
            if metrics is not None:
                voice.say(f"metrics at {metrics}", address=metrics)
            voice.say(f"listening on {address}", address=address)

        _serve(serving, listener, exposed, workers, started)


def _serve(
    serving: Serving,
    listener: socket.socket,
    exposed: socket.socket | None,
    workers: int,
    started: Callable[[], None],
) -> None:
    # Before the processes part, so that they share what it takes.
    from tracker.collector.serving.process import Place, run

    if workers == 1:
        os.environ.pop(_METRICS_FOLDER, None)
        run(serving, Place(listener, exposed), started)
        return

    def work(number: int, owner: int, ready: Callable[[], None]) -> None:
        with serving.voice.telling_errors():
            run(serving, Place(listener, exposed, number, owner), ready)

    stop_seconds = serving.drain_seconds + SHUTDOWN_SECONDS + _KILL_SECONDS
    with contextlib.ExitStack() as stack:
        died = _ignore
        if exposed is not None:
            folder = tempfile.TemporaryDirectory(prefix="tracker-metrics-")
            os.environ[_METRICS_FOLDER] = stack.enter_context(folder)
            died = _forget
        code = Workers(workers, work, stop_seconds, died).run(started)
    sys.exit(code)


def _forget(pid: int) -> None:
    """Leave what a worker that died was doing out of the metrics of the present."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)


def _ignore(pid: int) -> None:
    """Do nothing."""


def _check_database(serving: Serving, workers: int) -> None:
    """Refuse options that do not fit the database."""
    try:
        is_sqlite = serving.is_sqlite
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
    if is_sqlite and serving.direct is not None:
        raise click.UsageError("--direct-database is only for PostgreSQL")
    if is_sqlite and workers > 1:
        raise click.UsageError("an SQLite file has one writer: --workers needs PostgreSQL")


def _check_prometheus() -> None:
    if find_spec("prometheus_client") is None:
        raise click.UsageError(
            "--metrics-port needs the extra: pip install 'agent-tracking-sdk[prometheus]'"
        )


def _has_templates(voice: Voice) -> bool:
    try:
        import tracker.collector.ui.app  # noqa: F401 - it needs what is in the extra since it is
    except ImportError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        voice.warn(
            f"there are no pages at /ui/ (the library {error.name} is missing: pip install "
            "'agent-tracking-sdk[collector]')"
        )
        return False
    return True
