"""Real receivers of OTLP as processes on loopback, and what they have stored."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from tests.support.environments import python_with
from tests.support.uploads import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

_START_SECONDS = 180.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class StoredSpan(NamedTuple):
    """A span as a receiver has it. Times are Unix nanoseconds, to the receiver's precision."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]

    def about(self, name: str) -> Any:
        """Return an attribute, whether the receiver keeps its name or nests it; None without it."""
        if name in self.attributes:
            return self.attributes[name]
        found: Any = self.attributes
        for part in name.split("."):
            if isinstance(found, list):
                found = dict(enumerate(found)).get(int(part)) if part.isdecimal() else None
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found

    @property
    def kind(self) -> str:
        """What the receiver takes it for, such as ``"TOOL"``."""
        return str(self.about("mlflow.spanType") or self.about("openinference.span.kind"))


class StoredSession(NamedTuple):
    """A conversation as a receiver shows it."""

    prompt_tokens: int
    completion_tokens: int
    first_input: str | None


class Backend:
    """A receiver. A context manager, which owns the process; `kill` and `start` may follow.

    Args:
        folder: Where it keeps what it stores.
    """

    package = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - of the class, never changed

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._python = python_with(self.package)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.kill)
            self.start()
            self.prepare()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a tracker that sends to it."""
        headers = ",".join(f"{name}={value}" for name, value in self.headers.items())
        return {"SDK_PROTOCOL": "otlp", "SDK_BASE_URL": self.url, "SDK_OTLP_HEADERS": headers}

    def start(self) -> None:
        """Start it and wait until it answers."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._python.parent / self.program()[0], *self.program()[1:]],
                env={**kept, "PATH": os.defpath, **self.variables()},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, f"{self.package} answers", _START_SECONDS)

    def kill(self) -> None:
        """Kill it and all its processes, without a chance to write anything."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.folder / "server.log").read_text()[-2_000:])
        try:
            return requests.get(f"{self.url}{self.health()}", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def query(self, statement: str) -> list[Any]:
        """Return the rows of a query of its database; none while it makes its tables."""
        path = self.folder / "store.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(statement).fetchall()

    def program(self) -> Sequence[str]:
        """Return the command line, beginning with a program of its environment."""
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """Return further environment variables."""
        return {}

    def health(self) -> str:
        """Return a path that answers 200 once it works."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what has to be there before the first span."""

    def spans(self) -> list[StoredSpan]:
        """Return all spans, the probe left out."""
        raise NotImplementedError

    def sessions(self) -> dict[str, StoredSession]:
        """Return all conversations by their ids, as its API tells them."""
        raise NotImplementedError


class MLflow(Backend):
    """MLflow's tracking server, on SQLite. Its first experiment of our own has the id 1."""

    package = "mlflow==3.17.2"
    headers = {"x-mlflow-experiment-id": "1"}  # noqa: RUF012 - as above

    def program(self) -> Sequence[str]:
        """As above."""
        store = f"sqlite:///{self.folder / 'store.db'}"
        return (
            *("mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", store, "--workers", "1"),
        )

    def health(self) -> str:
        """As above."""
        return "/health"

    def prepare(self) -> None:
        """As above."""
        path = f"{self.url}/api/2.0/mlflow/experiments/create"
        made = requests.post(path, json={"name": "kiosk"}, timeout=30).json()
        assert made["experiment_id"] == self.headers["x-mlflow-experiment-id"]

    def spans(self) -> list[StoredSpan]:
        """As above."""
        rows = self.query(
            "SELECT trace_id, span_id, parent_span_id, name, start_time_unix_nano, "
            "end_time_unix_nano, content FROM spans"
        )
        return [
            StoredSpan(
                trace.removeprefix("tr-"),
                span,
                parent,
                name,
                start,
                end,
                _decoded(json.loads(content)["attributes"]),
            )
            for trace, span, parent, name, start, end, content in rows
            if name != "tracker.connected"
        ]

    def sessions(self) -> dict[str, StoredSession]:
        """As above. It has traces that name one, and sums of each trace's tokens."""
        found: dict[str, StoredSession] = {}
        for trace in sorted(self._traces(), key=itemgetter("request_time")):
            about = trace.get("trace_metadata", {})
            session_id = about.get("mlflow.trace.session")
            if session_id is None:
                continue
            used = json.loads(about.get("mlflow.trace.tokenUsage", "{}"))
            prompt, completion, first = found.get(session_id, (0, 0, None))
            found[session_id] = StoredSession(
                prompt + used.get("input_tokens", 0),
                completion + used.get("output_tokens", 0),
                first or _text_of(trace.get("request_preview")),
            )
        return found

    def _traces(self) -> list[dict[str, Any]]:
        """Return what its API says of each trace."""
        where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}}
        asked: dict[str, Any] = {"locations": [where], "max_results": 500}
        found: list[dict[str, Any]] = []
        while True:
            path = f"{self.url}/api/3.0/mlflow/traces/search"
            answer = requests.post(path, json=asked, timeout=30).json()
            found += answer["traces"]
            asked["page_token"] = answer.get("next_page_token")
            if not asked["page_token"]:
                return found


class Phoenix(Backend):
    """Arize Phoenix, on SQLite."""

    package = "arize-phoenix==20.26.1"
    headers = {"x-project-name": "kiosk"}  # noqa: RUF012 - as above

    def program(self) -> Sequence[str]:
        """As above."""
        return ("phoenix", "serve")

    def variables(self) -> dict[str, str]:
        """As above."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            other = free.getsockname()[1]
        return {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(self.port),
            "PHOENIX_GRPC_PORT": str(other),
            "PHOENIX_WORKING_DIR": str(self.folder),
            "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{self.folder / 'store.db'}",
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }

    def health(self) -> str:
        """As above."""
        return "/healthz"

    def spans(self) -> list[StoredSpan]:
        """As above."""
        rows = self.query(
            "SELECT t.trace_id, s.span_id, s.parent_id, s.name, s.start_time, s.end_time, "
            "json(s.attributes) "
            "FROM spans s JOIN traces t ON t.id = s.trace_rowid"
        )
        return [
            StoredSpan(
                *(trace, span, parent, name),
                *(_nanoseconds(start), _nanoseconds(end), json.loads(attributes)),
            )
            for trace, span, parent, name, start, end, attributes in rows
            if name != "tracker.connected"
        ]

    def sessions(self) -> dict[str, StoredSession]:
        """As above."""
        asked = """{ projects { edges { node { sessions(first: 1000) { edges { node {
            sessionId tokenUsage { prompt completion } firstInput { value }
        } } } } } } }"""
        answer = requests.post(f"{self.url}/graphql", json={"query": asked}, timeout=30).json()
        return {
            session["node"]["sessionId"]: StoredSession(
                int(session["node"]["tokenUsage"]["prompt"]),
                int(session["node"]["tokenUsage"]["completion"]),
                (session["node"]["firstInput"] or {}).get("value"),
            )
            for project in answer["data"]["projects"]["edges"]
            for session in project["node"]["sessions"]["edges"]
        }


def _nanoseconds(stored: str) -> int:
    """Return a time that is stored as text, to the microsecond."""
    since = datetime.fromisoformat(stored).replace(tzinfo=timezone.utc) - _EPOCH
    return since // timedelta(microseconds=1) * 1_000


def _text_of(preview: str | None) -> str | None:
    """Return what a preview shows: JSON text, or text as it is."""
    if not preview:
        return None
    try:
        return str(json.loads(preview))
    except ValueError:
        return preview


def _decoded(attributes: dict[str, str]) -> dict[str, Any]:
    """Return attributes that are stored as JSON text each."""
    found = {}
    for name, value in attributes.items():
        try:
            found[name] = json.loads(value)
        except (TypeError, ValueError):
            found[name] = value
    return found
