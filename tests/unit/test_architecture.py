"""Which modules may import which, held by parsing the source."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import tracker

PACKAGE = Path(tracker.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if "_migrations" not in path.parts
}
BASE = {"tracker.errors", "tracker.validation", "tracker.canonical", "tracker.ids"}
BOTH = {
    *("tracker.sync.worker", "tracker.sync.uploader", "tracker.sync.flush", "tracker.sync.copies"),
    *("tracker.sync.letters", "tracker.sync.bundle", "tracker.sync.returned"),
}
WIRE = {"tracker.client", "tracker.trackers.base", "tracker.testing", "tracker.aio.calls"}


@functools.cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


@functools.cache
def imports(name: str) -> set[str]:
    """Return every module that `name` imports, wherever in the file, type checking included."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found - {f"{name}.__init__"}


def within(modules: set[str], *packages: str) -> set[str]:
    return {name for name in modules if any(f"{name}.".startswith(f"{p}.") for p in packages)}


def importers(*packages: str) -> set[str]:
    return {name for name in MODULES if within(imports(name), *packages)}


def modules_imported_by(name: str) -> set[str]:
    """Return the modules of this package that `name` imports itself, wherever in the file."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {module_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.add(module_of(f"{node.module}.{alias.name}") or module_of(f"{node.module}"))
    return found - {""}


def module_of(name: str) -> str:
    return next((each for each in (name, f"{name}.__init__") if each in MODULES), "")


def test_no_import_closes_a_circle() -> None:
    """Those for type checking included: each module can be understood after those it imports."""
    graph = {name: modules_imported_by(name) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


ORDER = ("files", "sqlite", "schema", "store", "queue", "integrity", "maintenance", "recovery")
"""The packages of the outbox: each imports only those before it."""
SIDE_BY_SIDE = {("queue", "integrity"), ("integrity", "queue")}


def test_the_packages_of_the_outbox_import_only_those_before_them() -> None:
    """A file at the top of the outbox may use all of them, and none of them uses such a file."""
    for name in MODULES:
        _, _, package, *module = [*name.split("."), ""]
        if not name.startswith("tracker.outbox.") or package not in ORDER or not module[0]:
            continue
        for other in within(modules_imported_by(name), "tracker.outbox"):
            used = other.split(".")[2]
            assert used in ORDER[: ORDER.index(package) + 1], f"{name} imports {other}"
            assert (package, used) not in SIDE_BY_SIDE, f"{name} imports {other}"


def test_nothing_outside_imports_deeper_than_the_outbox() -> None:
    """What the rest of the package needs, the outbox exports."""
    for name in MODULES:
        if not name.startswith("tracker.outbox"):
            modules = {node.module or "" for node in ast.walk(parsed(name))
                       if isinstance(node, ast.ImportFrom)}  # fmt: skip
            assert not within(modules - {"tracker.outbox"}, "tracker.outbox"), name


def test_errors_and_events_know_nothing_above_them() -> None:
    """errors ← {validation, canonical, ids} ← events ← everything else."""
    assert not within(imports("tracker.errors"), "tracker")
    for name in BASE - {"tracker.errors"}:
        assert within(imports(name), "tracker") <= {
            item
            for item in imports(name)
            if item.startswith(("tracker.errors", "tracker.forks", "tracker.redaction.uncut"))
        }
    known = BASE | {"tracker"} | {item for item in imports("tracker.events")
                                  if item.rpartition(".")[0] in BASE | {"tracker"}}  # fmt: skip
    assert within(imports("tracker.events"), "tracker") <= known


def test_only_some_modules_of_sync_know_the_outbox() -> None:
    """Destinations and decisions never see the outbox; the outbox never sees them."""
    sync = {name for name in MODULES if name.startswith("tracker.sync.")}
    assert sync & importers("tracker.outbox") == BOTH
    outbox = {name for name in MODULES if name.startswith("tracker.outbox")}
    assert not outbox & importers("tracker.sync", "tracker.trackers", "tracker.client")


def test_trackers_know_neither_outbox_nor_destinations() -> None:
    """They build events and record them; only their base asks the client for a way to."""
    for name in MODULES:
        if name.startswith("tracker.aio."):
            assert not within(imports(name), "tracker.outbox"), name
        if name.startswith("tracker.trackers."):
            assert not within(imports(name), "tracker.outbox", "sqlalchemy", "requests"), name
            assert within(imports(name), "tracker.sync") <= {
                "tracker.sync.flush",
                "tracker.sync.flush.FlushResult",
                "tracker.sync.destination",
                "tracker.sync.destination.Destination",  # the type of their argument
            }, name
    users = {name for name in importers("tracker.client") if not name.startswith("tracker.cli.")}
    assert users <= WIRE


def test_the_collector_is_a_program_of_its_own() -> None:
    """It never imports what it is there to check."""
    forbidden = ("tracker.outbox", "tracker.sync", "tracker.client", "tracker.config",
                 "tracker.trackers")  # fmt: skip
    assert not {name for name in importers(*forbidden) if name.startswith("tracker.collector")}


def test_what_sends_spans_knows_neither_outbox_nor_collector() -> None:
    """Both do: an outbox its own events, and a collector those of all that it has received."""
    for name in MODULES:
        if name.startswith(("tracker.delivery.", "tracker.otlp.")):
            forbidden = ("tracker.outbox", "tracker.sync", "tracker.client", "tracker.config",
                         "tracker.trackers", "tracker.collector")  # fmt: skip
            assert not within(imports(name), *forbidden), name
        if name.startswith("tracker.delivery."):
            assert not within(imports(name), "tracker.otlp"), name


def test_pages_know_neither_outbox_nor_collector() -> None:
    """Both are shown by them: what they read is a source."""
    pages = {name for name in MODULES if name.startswith("tracker.pages.")}
    others = ("tracker.outbox", "tracker.collector", "tracker.dashboard", "tracker.sync",
              "tracker.client", "tracker.config", "tracker.trackers")  # fmt: skip
    assert not pages & importers(*others)
    commands = {name for name in pages if within(imports(name), "tracker.cli")}
    assert commands == {"tracker.pages.words"}  # which says figures as the commands do
    users = importers("tracker.dashboard") - within({*MODULES}, "tracker.dashboard")
    assert users == {"tracker.cli.dashboard"}


def test_sealed_files_know_neither_outbox_nor_collector() -> None:
    """Both write and read them."""
    for name in MODULES:
        if name.startswith("tracker.sealed."):
            found = within(imports(name), "tracker")
            assert found == within(found, "tracker.sealed", "tracker.errors"), name


def test_evidence_knows_neither_outbox_nor_collector() -> None:
    """Both make it, of what they keep; the verifier runs where nothing else is installed."""
    evidence = {name for name in MODULES if name.startswith("tracker.evidence.")}
    allowed = ("tracker.evidence", "tracker.errors", "tracker.late_imports", "tracker.whole_file")
    for name in evidence:
        found = within(imports(name), "tracker")
        assert found - {"tracker"} == within(found, *allowed), name
    assert {each.partition(".")[0] for each in imports("tracker.evidence.verifier")} <= {
        *sys.stdlib_module_names
    }


def test_queries_that_the_collector_shares_know_no_database_of_their_own() -> None:
    """It runs them over its own events; what SQLite and PostgreSQL spell differently has one place.

    `sessions` is the security tracker's alone.
    """
    shared = {name for name in MODULES if name.startswith("tracker.queries.")}
    shared -= {"tracker.queries.sessions"}
    assert not shared & importers("tracker.outbox", "tracker.collector")
    texts = {name: MODULES[name].read_text() for name in shared}
    spelled = {name for name, text in texts.items() if "json_extract" in text}
    assert spelled == {"tracker.queries.source"}
    assert not [name for name, text in texts.items() if "exec_driver_sql" in text]


def test_some_libraries_have_one_door() -> None:
    """Alembic is slow to import; pages and collector share a web framework; requests is HTTP's."""
    assert importers("alembic") == {"tracker.outbox.schema.create"}
    clients = importers("requests", "urllib3")
    assert clients - within(clients, "tracker.cli", "tracker.demo") == {
        "tracker.delivery.http_client",
        "tracker.delivery.transport",
    }
    receivers = importers("opentelemetry.proto", "google.protobuf")
    speakers = within(receivers, "tracker.otlp", "tracker.collector.otlp")
    assert receivers - speakers <= {"tracker.otel.values"}
    instrumented = importers("opentelemetry.sdk", "opentelemetry.trace", "opentelemetry.context")
    assert not within(instrumented, "tracker.sync", "tracker.otlp")
    assert importers("cryptography") <= {"tracker.evidence.keys"}
    assert importers("tomllib", "tomli") == {"tracker.config.toml_file"}
    servers = importers("fastapi", "uvicorn", "starlette")
    assert servers == within(servers, "tracker.collector", "tracker.pages", "tracker.dashboard")
    assert importers("jinja2") == {"tracker.pages.templates"}
    markup = {"tracker.pages.shown", "tracker.pages.charts"}
    assert {
        name for name in importers("markupsafe") if "Markup(" in MODULES[name].read_text()
    } == markup


def test_only_the_packages_for_it_know_opentelemetry() -> None:
    """What is sent as OTLP needs its messages, but not its SDK; spans that come in need both."""
    users = importers("opentelemetry")
    speakers = within(users, "tracker.otel", "tracker.otlp", "tracker.collector.otlp")
    assert users == speakers
    sdk = importers("opentelemetry.sdk", "opentelemetry.trace", "opentelemetry._logs")
    assert sdk - within(sdk, "tracker.otel") == set()
    shared = imports("tracker.otel.values") | imports("tracker.otel.plain")
    assert within(shared, "opentelemetry") == within(shared, "opentelemetry.proto")
    coming_in = {name for name in MODULES if name.startswith("tracker.otel.")}
    assert coming_in & importers("tracker.outbox") == {"tracker.otel.started"}
    assert not coming_in & importers("tracker.sync", "tracker.client", "tracker.queries")


def test_what_waits_goes_by_a_clock_that_no_test_can_freeze() -> None:
    """Only what is measured, and the demo, whose process is its own, look at another one."""
    frozen = {
        name
        for name in MODULES
        if any(
            isinstance(node, ast.Attribute)
            and node.attr in ("monotonic", "perf_counter", "sleep")
            and isinstance(node.value, ast.Name)
            and node.value.id == "time"
            for node in ast.walk(parsed(name))
        )
    }
    measuring = ("tracker.trackers", "tracker.elapsed", "tracker.sessions")
    demo = {name for name in frozen if name.startswith("tracker.demo.")}
    assert frozen - within(frozen, *measuring) - demo == set()


def test_only_the_sources_of_settings_read_the_environment() -> None:
    """Settings of programs (the collector's, the commands') apart."""
    readers = {
        name
        for name in MODULES
        if any(
            isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
            for node in ast.walk(parsed(name))
        )
    }
    programs = ("tracker.collector", "tracker.cli", "tracker.demo")
    assert readers - within(readers, *programs) == {
        "tracker.config.sources",
        "tracker.otel.instrumentation",  # which sets the instrumentors' switches
    }


@pytest.mark.parametrize(
    "module",
    [
        *("requests", "backoff", "alembic", "rich", "click", "fastapi", "cryptography"),
        "tracker.otel",
        *("tomllib", "tomli", "tracker.config.key_file", "tracker.stderr"),
        *("opentelemetry", "google.protobuf", "tracker.otlp", "tracker.sync.otlp"),
        *("starlette", "uvicorn", "jinja2", "tracker.pages", "tracker.dashboard"),
        *("tracker.evidence", "tracker.outbox.recovery.salvage", "tracker.outbox.queue.settlement"),
    ],
)
def test_importing_the_package_does_not_import(module: str, loaded: frozenset[str]) -> None:
    """An application that starts should not wait for what it may never need."""
    assert module not in loaded


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    """Modules of a fresh interpreter that has imported the package."""
    code = "import sys, tracker; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(run.stdout.split())
