"""Other libraries that log or queue, used as their documentation says; their servers are away."""

from __future__ import annotations

import json
import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.benchmarks.outboxes import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.benchmarks.messages import Message

    Log = Callable[[Message], object]


def _sqlalchemy_orm(folder: Path) -> Log:
    from sqlalchemy import Integer, Text, create_engine, event
    from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

    class Base(DeclarativeBase):
        """The mapped classes' base."""

    class Logged(Base):
        """A message, written as the tutorial would."""

        __tablename__ = "messages"
        id = mapped_column(Integer, primary_key=True)
        session_id = mapped_column(Text, index=True)
        role = mapped_column(Text)
        content = mapped_column(Text)

    engine = create_engine(f"sqlite:///{folder / 'orm.db'}")

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")  # kinder than the default: no second fsync
        connection.execute("PRAGMA synchronous=NORMAL")

    Base.metadata.create_all(engine)

    def log(message: Message) -> None:
        with Session(engine) as session:
            session.add(Logged(**message._asdict()))
            session.commit()

    return log


def _persist_queue(folder: Path) -> Log:
    queue = import_module("persistqueue").SQLiteQueue(str(folder / "persist"), auto_commit=True)
    return lambda message: queue.put(message._asdict())


def _litequeue(folder: Path) -> Log:
    queue = import_module("litequeue").LiteQueue(str(folder / "lite.db"))
    return lambda message: queue.put(json.dumps(message._asdict()))


def _posthog(_folder: Path) -> Log:
    _hush("posthog", "urllib3", "backoff")
    client = import_module("posthog").Posthog("phc_benchmark", host=NOBODY)
    return lambda message: client.capture(
        "message.logged", distinct_id="benchmark", properties=message._asdict()
    )


def _opentelemetry(_folder: Path) -> Log:
    _hush("opentelemetry", "urllib3")
    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    trace = import_module("opentelemetry.sdk.trace")
    processors = import_module("opentelemetry.sdk.trace.export")
    provider = trace.TracerProvider()
    provider.add_span_processor(
        processors.BatchSpanProcessor(exporter.OTLPSpanExporter(f"{NOBODY}/v1/traces"))
    )
    tracer = provider.get_tracer("benchmark")

    def log(message: Message) -> None:
        tracer.start_span("message.logged", attributes=message._asdict()).end()

    return log


def _langfuse(_folder: Path) -> Log:
    _hush("langfuse", "opentelemetry", "urllib3")
    client = import_module("langfuse").Langfuse(
        public_key="pk-lf-benchmark", secret_key="sk-lf-benchmark", base_url=NOBODY
    )

    def log(message: Message) -> None:
        client.start_observation(
            name="message.logged", input=message.content, metadata={"role": message.role}
        ).end()

    return log


def _hush(*names: str) -> None:
    """Keep the complaints about the missing server off the terminal."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)


MAKERS: Mapping[str, Callable[[Path], Log]] = {
    "posthog": _posthog,
    "opentelemetry": _opentelemetry,
    "langfuse": _langfuse,
    "sqlalchemy-orm": _sqlalchemy_orm,
    "persist-queue": _persist_queue,
    "litequeue": _litequeue,
}
"""Each makes, in a folder of its own, the call that logs a message."""

PROMISES = {
    "posthog": "in memory",
    "opentelemetry": "batch processor, in memory",
    "langfuse": "in memory",
    "sqlalchemy-orm": "a session each time, WAL, NORMAL",
    "persist-queue": "SQLite, committed",
    "litequeue": "SQLite, WAL, NORMAL",
}
"""Where each peer keeps a message when its call returns."""
