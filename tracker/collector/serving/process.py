"""`run`: one process that serves. It imports the web framework, so it is imported late."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import click

from tracker.collector.app import create_app
from tracker.collector.key_watch import KeyWatch
from tracker.collector.meter import Meter
from tracker.collector.options import opened, witness_given
from tracker.collector.partitioning.ahead import keeping
from tracker.collector.rollups.rolling import Rolling
from tracker.collector.serving.server import Server
from tracker.collector.stamping import Stamping
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tracker.collector.schema import Schema
    from tracker.collector.serving.prometheus import PrometheusMeter
    from tracker.collector.serving.serving import Serving
    from tracker.collector.store import Store


class Place(NamedTuple):
    """Where a process serves, and as what.

    Attributes:
        listener: The listening socket, which is closed at the end.
        exposed: That for metrics, or None.
        number: Its number among the workers: the first one says how it starts, asks the time
            stamp authority for all, and rolls events up.
        owner: Becomes readable when the process that owns this one has died; None if none does.
    """

    listener: socket.socket
    exposed: socket.socket | None = None
    number: int = 0
    owner: int | None = None


def run(serving: Serving, place: Place, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        serving: What is asked for.
        place: Where.
        started: Called when requests are accepted.

    Raises:
        click.ClickException: if the database cannot be used as asked for.
    """
    is_first = place.number == 0
    warn = serving.voice.warn if is_first else _say_nothing
    batches, _ = serving.settings.concurrent_batches
    with contextlib.ExitStack() as stack:
        schema: Schema = "update" if serving.migrates else "require"
        store = stack.enter_context(
            opened(serving.database, serving.durability, batches, schema=schema)
        )
        for warning in filter(None, (store.warning, store.schema_warning)):
            warn(warning)
        if is_first and serving.migrates:
            stack.enter_context(keeping(store))
        store.witness = witness_given(
            serving.database, serving.key_file, serving.witness_name, warn
        )
        if is_first and serving.tsa is not None:
            stack.enter_context(_stamping(store, serving.tsa))
        meter = None if place.exposed is None else _metering(stack, store, place.exposed)
        if is_first:
            stack.enter_context(Rolling(store, (meter or Meter()).rolls_up))
        watch = _key_watch(store, serving)
        if watch is not None:
            stack.enter_context(watch)
            if is_first and (trouble := watch.trouble()):
                warn(f"each request looks its API key up ({trouble})")
        app = create_app(store, serving.settings, serving.ui_hosts, watch, meter)
        stack.callback(app.state.parts.uses.close)
        readiness = app.state.parts.readiness
        server = Server(app, started, readiness.stop, serving.drain_seconds, place.owner)
        server.run(sockets=[place.listener])


def _say_nothing(_text: str) -> None:
    """Leave it to the first worker."""


def _metering(stack: contextlib.ExitStack, store: Store, exposed: socket.socket) -> PrometheusMeter:
    """Count what happens, and answer requests for the figures until the stack is left."""
    from tracker.collector.serving.prometheus import Exposition, PrometheusMeter

    meter = PrometheusMeter()
    store.count_connections(meter.uses_connection)
    stack.enter_context(Exposition(exposed, meter.registry))
    return meter


def _stamping(store: Store, url: str) -> Stamping:
    if store.witness is None:
        raise click.UsageError("--tsa stamps what is cosigned, and nothing will be")
    try:
        return Stamping(store, url)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--tsa") from error


def _key_watch(store: Store, serving: Serving) -> KeyWatch | None:
    if store.dialect == "sqlite":
        return None
    try:
        return KeyWatch(store, serving.direct or serving.database)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--direct-database") from error
