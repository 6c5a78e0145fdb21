"""Instrumentors of what the tracker itself uses: its own statements and requests make no events."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.contract.otel.conftest import rows
from tests.support import environments
from tests.support.server import answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import ScriptedServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

LIBRARIES = {
    "requests": "requests:RequestsInstrumentor",
    "urllib3": "urllib3:URLLib3Instrumentor",
    "sqlite3": "sqlite3:SQLite3Instrumentor",
    "sqlalchemy": "sqlalchemy:SQLAlchemyInstrumentor",
    "logging": "logging:LoggingInstrumentor",
}
REQUIREMENTS = (
    "sqlalchemy<2.1",  # its instrumentor takes no later one
    *(f"opentelemetry-instrumentation-{name}" for name in LIBRARIES),
)

PROGRAM = """
import faulthandler, importlib, json, logging, sqlite3, sys, time
from collections import Counter
from pathlib import Path
path, server, seconds, *libraries = sys.argv[1:]
faulthandler.dump_traceback_later(60, exit=True)
early = "early" in libraries

def turn_on():
    for library in libraries:
        if ":" in library:
            module, _, name = library.partition(":")
            module = importlib.import_module(f"opentelemetry.instrumentation.{module}")
            getattr(module, name)().instrument()

if early:
    turn_on()
from opentelemetry.sdk._logs import LoggingHandler
from tracker import APIConfig, Tracker, TrackerHandler
from tracker.otel import instrument

settings = APIConfig(api_key="test-key", client_id="test-client", base_url=server,
                     outbox_path=Path(path), flush_interval=0, backoff_base=0.01, backoff_cap=0.05)
tracker = Tracker(settings)
provider, logger_provider = instrument(tracker, started="started" in libraries)
if "logging" not in str(libraries):  # which adds one
    logging.getLogger().addHandler(LoggingHandler(logger_provider=logger_provider))
logging.getLogger().addHandler(TrackerHandler(tracker))
for name in ("tracker", "sqlalchemy", "urllib3", "application"):
    logging.getLogger(name).setLevel(logging.DEBUG)
if not early:
    turn_on()
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
made = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(made))
otel = provider.get_tracer("the application")
import requests, sqlalchemy, urllib3
logging.disable(logging.CRITICAL)
requests.get(server)
urllib3.PoolManager().request("GET", server)
sqlite3.connect(":memory:").execute("SELECT 1")
with sqlalchemy.create_engine("sqlite://").connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 2"))
logging.disable(logging.NOTSET)
for number in range(5):
    with otel.start_as_current_span("the application's"):
        tracker.track("application.event", {"number": number})
tracker.get_usage() if hasattr(tracker, "get_usage") else tracker.llm.get_usage()
tracker.health()
tracker.flush(timeout=0.2)
logging.getLogger("application").warning("the application's")
time.sleep(float(seconds))
tracker.flush(timeout=0.2)
with otel.start_as_current_span("the application's"):
    tracker.track("application.event", {"number": 5})
names = Counter(span.name for span in made.get_finished_spans())
print(json.dumps([tracker.health().otel_dropped, names]))
tracker.close(timeout=0.2)
"""


def stored(path: Path) -> Counter[str]:
    return Counter(
        f"{row.type} {row.data.get('name') or row.data.get('body') or row.data.get('message', '')}"
        for row in rows(path, "otel.span", "otel.log", "log.recorded", "application.event")
    )


@pytest.mark.parametrize("early", ["early", "late"])
@pytest.mark.parametrize("library", [*LIBRARIES, "all"])
def test_nothing_of_its_own_is_recorded_while_the_server_is_down(
    tmp_path: Path, scripted_server: ScriptedServer, library: str, early: str
) -> None:
    """Or each failed upload would make events to upload, without end.

    What the application does with the same libraries is recorded.
    """
    scripted_server.otherwise = answer(503)
    names = list(LIBRARIES) if library == "all" else [library]
    path = tmp_path / "outbox.sqlite3"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    said = environments.run(
        environments.python_with(*REQUIREMENTS),
        program,
        path,
        scripted_server.url,
        10 if library == "all" else 3,
        early,
        *[LIBRARIES[name] for name in names],
    )
    dropped, made = json.loads(said)
    assert dropped == 0
    if library != "logging":
        assert sum(made.values()) > 6
    found = stored(path)
    assert found.pop("application.event ") == 6
    assert found == Counter(
        {
            "otel.log the application's": 1,
            "log.recorded the application's": 1,
            **{f"otel.span {name}": number for name, number in made.items()},
        }
    )
