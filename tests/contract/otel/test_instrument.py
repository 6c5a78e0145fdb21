"""`instrument`: everything of OpenTelemetry in the process, in one call."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from tests.contract.otel.conftest import rows
from tracker.otel.instrumentation import chosen

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, sys, logging
from pathlib import Path
from tests.support.settings import quick
from tracker import Tracker
from tracker.otel import instrument
from tracker.testing import RecordingDestination

tracker = Tracker(quick(Path(sys.argv[1]), capture_content=sys.argv[2] == "yes"),
                  destination=RecordingDestination)
first, second = instrument(tracker), instrument(tracker)
assert first == second
from opentelemetry import trace, _logs
assert (trace.get_tracer_provider(), _logs.get_logger_provider()) == first
trace.get_tracer("x").start_span("step").end()
_logs.get_logger("x").emit(_logs.LogRecord(body="hello"))
print(os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"))
tracker.close()
"""


def run(folder: Path, capture: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, capture],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_spans_and_records_of_the_global_providers_are_stored_once(tmp_path: Path) -> None:
    """However often it is called, and messages are recorded."""
    assert run(tmp_path, "yes", OTEL_SERVICE_NAME="kiosk") == "SPAN_ONLY"
    found = rows(tmp_path / "outbox.sqlite3")
    assert [row.type for row in found] == ["otel.span", "otel.log"]
    assert found[0].data["resource"]["attributes"]["service.name"] == "kiosk"


def test_the_environment_and_capture_content_come_first(tmp_path: Path) -> None:
    """Nobody's decision not to record messages is overruled."""
    name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert run(tmp_path, "yes", **{name: "NO_CONTENT"}) == "NO_CONTENT"
    (tmp_path / "other").mkdir()
    assert run(tmp_path / "other", "no") == "None"


def test_one_instrumentor_of_each_model_library_is_chosen() -> None:
    """What instruments web frameworks and databases is the application's to choose."""
    found = [
        EntryPoint(name, value, "opentelemetry_instrumentor")
        for name, value in (
            ("flask", "a:Flask"),
            ("openai_v2", "b:OpenAI"),
            ("openai", "c:OpenAI"),
            ("langchain", "d:LangChain"),
            ("openai-agents", "e:Agents"),
        )
    ]
    assert [each.value for each in chosen(found)] == ["b:OpenAI", "d:LangChain", "e:Agents"]
