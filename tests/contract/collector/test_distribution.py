"""Ready to be spread over several servers by client: the tables, and every statement for a client.

Citus cannot be had here, so what it asks for is checked: a table that is distributed by client has
`client_id` in its primary key and in whatever is unique, and a statement about it names the client,
so that one server answers it.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import create_engine, inspect, make_url

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.conversations import ROOT
from tests.support.device_tree import DeviceTree, new_key
from tests.support.pages import IS_CHECKOUT, Page, blocks_of
from tests.support.postgresql import PostgresServer, running_server, why_not
from tests.support.visitor import TeamVisitor
from tracker.collector.main import cli
from tracker.collector.rollups.roller import CLAIM
from tracker.collector.store import Store
from tracker.collector.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IS_CHECKOUT, reason="this page is not in the wheel"),
]

PAGE = ROOT / "tracker" / "collector" / "README.md"
SECTION = Page(PAGE).section("Past one PostgreSQL") if IS_CHECKOUT else ""
DISTRIBUTED = set(re.findall(r"create_distributed_table\('(\w+)', 'client_id'\)", SECTION))
STAYING = set(re.findall(r"`(\w+)`", SECTION.partition("These stay on the coordinator:")[2]
                         .partition(".")[0]))  # fmt: skip
OF_ALL_CLIENTS = {
    # The id up to which everybody may read, for whatever client.
    "SELECT max(events.id) AS max_1 FROM events",
    # A trial write, for the client of no name.
}
PREFIX = "'%a|'"  # for a shell


@pytest.fixture(scope="module")
def logging_server() -> Iterator[PostgresServer]:
    """A server that logs every statement, behind the name of the program."""
    if reason := why_not():
        pytest.skip(reason)
    settings = "-c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
    with running_server(f"{settings} -c log_statement=all -c log_line_prefix={PREFIX}") as server:
        yield server


def named(server: PostgresServer) -> str:
    """Return a new database, whose statements can be told apart by the program's name."""
    return f"{server.new_database()}&application_name=asked"


# --- the tables ---


def test_every_table_is_distributed_or_stays() -> None:
    """The page names them all, so that nobody has to guess about a new one."""
    assert set(metadata.tables) == DISTRIBUTED | STAYING
    assert not DISTRIBUTED & STAYING
    assert {name for name in DISTRIBUTED if "client_id" not in metadata.tables[name].c} == set()


def test_after_the_pages_statements_every_key_has_the_client(
    logging_server: PostgresServer, tmp_path: Path
) -> None:
    """As Citus asks of what it distributes; and a collector goes on as before."""
    url = named(logging_server)
    Store(url).close()
    name = str(make_url(url).database)
    before = without_client(url)
    (script,) = (block.text for block in blocks_of(SECTION) if block.language == "sql")
    logging_server.sql(script, name)
    assert without_client(url) == set()
    assert {table for table, _ in before} >= {"rejections", "checkpoints", "outbox_keys"}
    with CollectorProcess(tmp_path, database_url=url) as collector:
        client, device = collector.client("a"), DeviceTree(new_key())
        events = device.events(3)
        bad = {**device.event(), "digest": "0" * 64}
        assert client.send(device, [*events, bad, device.head()])["accepted"] == 4
        assert client.send(device, events)["duplicates"] == 3
        (outbox,) = client.outboxes()
        assert (outbox["missing"], outbox["refusals"][0]["first_seq"]) == ([], 4)


def without_client(url: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return the unique columns of distributed tables that lack the client, partitions included."""
    engine = create_engine(url)
    found = set()
    with engine.connect() as connection:
        present = inspect(connection)
        for table in present.get_table_names():
            if table not in DISTRIBUTED and not table.startswith("events_"):
                continue
            keys = [tuple(present.get_pk_constraint(table)["constrained_columns"])]
            keys += [tuple(each["column_names"]) for each in present.get_unique_constraints(table)]
            keys += [
                tuple(str(name) for name in each["column_names"])
                for each in present.get_indexes(table)
                if each["unique"]
            ]
            found |= {(table, key) for key in keys if key and "client_id" not in key}
    engine.dispose()
    return found


# --- the statements ---


def test_every_statement_for_a_client_names_the_client(
    logging_server: PostgresServer, tmp_path: Path
) -> None:
    """Of all routes of the API and all pages, and of the commands about one client."""
    url = named(logging_server)
    store = Store(url)
    # As long as this is held, no collector rolls up, which it does for all clients together.
    with store.claimed(CLAIM), CollectorProcess(tmp_path, database_url=url) as collector:
        client = collector.client("kiosk")
        visitor = TeamVisitor.of(collector, client.api_key)
        start = len(read_log(logging_server))
        asked = ask_everything(client, visitor)
        assert asked > 40
        erase = ["erase", "u", "--client", "kiosk", "--yes", "--database", url]
        assert CliRunner().invoke(cli, erase).exit_code == 0
        statements = statements_in(read_log(logging_server)[start:])
    store.close()
    about = [each for each in statements if tables_of(each) & DISTRIBUTED]
    assert len(about) > 60
    wrong = {each for each in about if not names_client(each)} - OF_ALL_CLIENTS
    assert wrong == set(), "\n\n".join(sorted(wrong))


def ask_everything(client: CollectorClient, visitor: TeamVisitor) -> int:
    """Send what a client can send, and read it in all ways that there are."""
    device = DeviceTree(new_key())
    fields: dict[str, Any] = {"session_id": "s", "user_id": "u", "agent_id": "a"}
    events = [
        device.event({}, type="conversation.started", **fields),
        device.event({"role": "user", "content": "hi"}, **fields),
        device.event({"name": "n", "duration_ms": 2}, type="span.recorded", **fields),
        device.event({"model": "m", "total_tokens": 3}, type="llm.used", **fields),
        device.event({"name": "n", "value": 1}, type="score.recorded", **fields),
        device.event({"subject": "x", "event_ids": [str(uuid.uuid4())]}, type="compliance.erased"),
    ]
    bad = {**device.event(), "event_id": str(uuid.uuid4()), "digest": "0" * 64}
    client.send(device, [*events, bad, device.head()])
    client.send(device, events)  # duplicates
    late = EventChain()
    two = late.events(2)
    client.send(late, two[1:])
    client.send(late, two[:1])
    span = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "name": "n",
            "startTimeUnixNano": "1", "endTimeUnixNano": "2"}  # fmt: skip
    traces = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    posted = requests.post(
        f"{client.url}/v1/traces", json=traces, headers=client.headers, timeout=10
    )
    assert posted.status_code == 200, posted.text
    described = requests.get(f"{client.url}/openapi.json", timeout=10).json()
    count = 0
    for path, methods in described["paths"].items():
        if "get" not in methods or "security" not in methods["get"] or path == "/v1/clients":
            continue
        given = path.format(session_id="s", trace_id="0" * 31 + "1", outbox_id=device.outbox_id)
        for query in (
            {},
            {"session_id": "s", "outbox_id": device.outbox_id, "seq": 1, "size": 8, "old": 1,
             "new": 8, "after": 0, "whole": "true"},
            {"agent_id": "a", "user_id": "u", "since": 1, "until": 2**42, "tag": "a=b",
             "status": "active", "by": "day", "before": 2**40, "session_id": "s"},
            {"status": "ended", "step": "hour", "include_content": "true", "session_id": "s",
             "outbox_id": device.outbox_id, "first_seq": 1, "last_seq": 3, "complete": "true"},
        ):  # fmt: skip
            answer = requests.get(client.url + given, query, headers=client.headers, timeout=30)  # type: ignore[arg-type] # requests turns anything to text
            assert answer.status_code < 500, f"{given}: {answer.text}"
            count += answer.status_code == 200
    pages = ("", "conversations", "conversation?id=s", "usage", "agents", "scores", "events",
             "outboxes", "rejections", "erasures", "traces", "metrics")  # fmt: skip
    for page in pages:
        answer_ = visitor.get(f"/ui/{page}")
        assert answer_.status < 500, page
        count += answer_.status == 200
    return count


def read_log(server: PostgresServer) -> str:
    return (server.folder / "log").read_text("utf-8", "replace")


def statements_in(log: str) -> set[str]:
    """Return the statements that were logged, each once and in one line."""
    entries = re.split(r"^(?=[^\n|]*\|(?:LOG|DETAIL|ERROR|STATEMENT|WARNING|HINT):)", log,
                       flags=re.MULTILINE)  # fmt: skip
    found = set()
    for entry in entries:
        text = re.match(r"asked\|LOG:\s+(?:statement|execute [^:]*):\s+(.*)", entry, re.DOTALL)
        if text:
            found.add(re.sub(r"\s+", " ", text[1]).strip())
    return found


_TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|COPY)\s+(?:ONLY\s+)?\"?(\w+)", re.IGNORECASE)
_BY_CLIENT = re.compile(r"client_id\"?\s*(?:=|IN\b)|=\s*\w+\.client_id", re.IGNORECASE)


def tables_of(statement: str) -> set[str]:
    """Return the names of tables in a statement."""
    return set(_TABLE.findall(statement))


def names_client(statement: str) -> bool:
    """Return True if each part of a statement that is about a distributed table has the client."""
    return all(
        _BY_CLIENT.search(part) or _gives_client(part)
        for part in parts_of(statement)
        if tables_of(part) & DISTRIBUTED
    )


def _gives_client(part: str) -> bool:
    """Return True if rows are added with a client."""
    return bool(re.match(r"\s*(?:INSERT INTO|COPY) \"?\w+\"? \([^)]*\bclient_id\b", part))


def parts_of(statement: str) -> list[str]:
    """Return a statement without what is in parentheses, and each of those that is a query."""
    parts, open_ = [], [""]
    for character in statement:
        if character == "(":
            open_.append("")
        elif character == ")" and len(open_) > 1:
            inner = open_.pop()
            if re.match(r"\s*(SELECT|WITH)\b", inner, re.IGNORECASE):
                parts.append(inner)
                inner = "…"
            open_[-1] += f"({inner})"
        else:
            open_[-1] += character
    return [*parts, "".join(open_)]


@pytest.mark.parametrize(
    ("statement", "is_so"),
    [
        ("SELECT * FROM events WHERE events.client_id = $1", True),
        ("SELECT * FROM events WHERE id > $1", False),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM heads) AND client_id = $1", False),
        ("SELECT * FROM (SELECT seq FROM events WHERE client_id = $1) AS e WHERE seq > 1", True),
        ("INSERT INTO events (client_id, seq) VALUES ($1, $2)", True),
        ("INSERT INTO events (seq) VALUES ($1)", False),
        ("UPDATE heads SET version = 1 WHERE outbox_id = $1", False),
        ("DELETE FROM events WHERE client_id IN ($1)", True),
    ],
)
def test_a_statement_without_the_client_is_told(statement: str, is_so: bool) -> None:
    """So that the test above can fail."""
    assert names_client(statement) is is_so
