"""API keys: made in bulk, expiring, rotated, with scopes and a record of every change."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests
from click.testing import CliRunner, Result
from sqlalchemy import insert, select

from tests.support.collector import CollectorClient, CollectorProcess, EventChain, ForkedCollector
from tests.support.conversations import ROOT
from tests.support.visitor import TeamVisitor
from tracker.collector import key_file
from tracker.collector.key_changes import recorded
from tracker.collector.key_tables import key_changes, key_uses
from tracker.collector.key_trigger import CHANNEL
from tracker.collector.key_uses import COARSE_MS, KeyUses
from tracker.collector.keys import ApiKey, Keys, Terms
from tracker.collector.main import cli
from tracker.collector.store import Store
from tracker.collector.tables import api_keys
from tracker.collector.ui.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

HOUR_MS = 3_600_000
PAST_MS = 1_790_000_000_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "c.sqlite3")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    yield opened
    opened.close()


def run(*arguments: object, database: str, given: str | None = None) -> Result:
    command = ["keys", *map(str, arguments), "--database", database]
    return CliRunner().invoke(cli, command, input=given)


def done(*arguments: object, database: str, given: str | None = None) -> str:
    """Run a command, which must work, and return what it prints."""
    result = run(*arguments, database=database, given=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(database: str, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done("list", "--json", *arguments, database=database))
    return found


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def made(collector: CollectorProcess, client_id: str | None, terms: Terms) -> CollectorClient:
    """Return a client with a key of its own kind."""
    with collector.store() as found:
        key, _ = Keys(found).create(client_id, terms=terms)
    return CollectorClient(collector.url, client_id or "somebody", key)


def refused(answer: requests.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def get(client: CollectorClient, path: str, **parameters: str) -> requests.Response:
    return requests.get(client.url + path, parameters, headers=client.headers, timeout=10)


# --- in bulk ---


def test_each_client_of_a_list_gets_its_key_once(database: str, tmp_path: Path) -> None:
    """Whoever has the file has every key; nobody else can read it."""
    clients = [f"kiosk-{number}" for number in range(2_500)]
    asked, output = tmp_path / "clients", tmp_path / "keys.csv"
    asked.write_text("\n".join(["", *clients, ""]) + "\n", "utf-8")
    done("create", "--clients", asked, "--output", output, "--label", "hall", database=database)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    rows = lines_of(output.read_text("utf-8"))
    assert [row["client_id"] for row in rows] == clients
    found = Store(database)
    for row in rows[::100]:
        key = Keys(found).find(row["key"])
        assert key is not None
        assert (key.client_id, key.id, key.label) == (row["client_id"], int(row["key_id"]), "hall")
    found.close()
    assert len(listed(database)) == len({row["key"] for row in rows}) == 2_500
    assert not key_file.draft_of(output).exists()


def test_a_list_can_come_by_a_pipe_and_its_keys_go_into_one(database: str) -> None:
    """As CSV that a comma in an id does not break."""
    text = done("create", "--clients", "-", database=database, given="a\r\nb,c\n\N{SNOWMAN}")
    assert text.startswith("client_id,key_id,key\n")
    assert [row["client_id"] for row in lines_of(text)] == ["a", "b,c", "\N{SNOWMAN}"]
    assert all(re.fullmatch(r"trk_[\w-]{43}", row["key"]) for row in lines_of(text))


class StoppedError(Exception):
    """What stands for the end of the process."""


class Interrupted(Keys):
    """Stops before or after the slice of this number."""

    def __init__(self, store: Store, slices: int, *, after: bool) -> None:
        super().__init__(store)
        self._slices = slices
        self._after = after

    def add(self, keys: Mapping[str, str], terms: Terms) -> dict[str, int]:
        self._slices -= 1
        if self._slices < 0 and not self._after:
            raise StoppedError
        ids = super().add(keys, terms)
        if self._slices < 0:
            raise StoppedError
        return ids


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("slices", [0, 1, 2])
def test_who_was_stopped_goes_on_and_no_client_gets_a_second_key(
    store: Store, tmp_path: Path, slices: int, *, after: bool
) -> None:
    """Wherever it was: the keys are in the draft, and in the file when all of them are valid."""
    clients = [f"kiosk-{number}" for number in range(2_100)]
    output, draft = tmp_path / "keys.csv", tmp_path / "keys.csv.draft"
    with pytest.raises(StoppedError):
        key_file.make_file(Interrupted(store, slices, after=after), clients, Terms(), output)
    assert not output.exists()
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    before = {row["key"] for row in lines_of(draft.read_text("utf-8"))}
    with pytest.raises(key_file.KeyFileError, match="other clients"):
        key_file.make_file(Keys(store), clients[1:], Terms(), output)
    key_file.make_file(Keys(store), clients, Terms(), output)
    rows = lines_of(output.read_text("utf-8"))
    assert {row["key"] for row in rows} == before
    valid = {key.id: key.client_id for key in Keys(store).list()}
    assert valid == {int(row["key_id"]): row["client_id"] for row in rows}
    assert len(valid) == 2_100
    assert not draft.exists()


def test_who_was_stopped_at_the_very_end_has_the_file(store: Store, tmp_path: Path) -> None:
    """The draft has both names for a moment."""
    output = tmp_path / "keys.csv"
    key_file.make_file(Keys(store), ["a"], Terms(), output)
    text = output.read_text("utf-8")
    os.link(output, key_file.draft_of(output))
    key_file.make_file(Keys(store), ["a"], Terms(), output)
    assert output.read_text("utf-8") == text
    assert list(tmp_path.glob("keys*")) == [output]
    assert len(Keys(store).list()) == 1


def test_a_file_is_never_replaced(database: str, tmp_path: Path) -> None:
    """It may hold keys; none is made then."""
    output = tmp_path / "keys.csv"
    output.write_text("mine")
    result = run("create", "--clients", "-", "--output", output, database=database, given="a")
    assert (result.exit_code, output.read_text()) == (1, "mine")
    assert result.stderr == f"Error: {output} exists; give another name\n"
    assert listed(database) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "names no client"),
        ("a\nb\na\n", "line 3 names the client of line 1 again"),
        ("a\n b\n", "line 2: the client id must be printable"),
        ("a\n" + "x" * 257, "line 2: the client id must have 1 to 256"),
    ],
)
def test_a_bad_line_makes_no_key(tmp_path: Path, given: str, said: str) -> None:
    """The message names it."""
    database = str(tmp_path / "c.sqlite3")
    result = run("create", "--clients", "-", database=database, given=given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert listed(database) == []


def test_keys_that_cannot_be_printed_are_revoked(tmp_path: Path) -> None:
    """Nobody knows them."""
    database = str(tmp_path / "c.sqlite3")
    command = [sys.executable, "-m", "tracker.collector.main", "keys", "create", "--clients", "-"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        process = subprocess.run(
            [*command, "--database", database],
            input=b"a\nb\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert process.returncode == 1
    assert b"No space left on device" in process.stderr
    assert [key for key in listed(database) if key["revoked_at_ms"] is None] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fleet_is_made_and_listed_soon(database: str, tmp_path: Path) -> None:
    """In seconds of work, as in a list of all; one client's keys at once."""
    asked, output = tmp_path / "clients", tmp_path / "keys.csv"
    asked.write_text("".join(f"kiosk-{number}\n" for number in range(20_000)))
    began = time.process_time()
    done("create", "--clients", asked, "--output", output, database=database)
    made_in = time.process_time() - began
    assert len(listed(database)) == 20_000
    listed_in = time.process_time() - began - made_in
    assert [key["client_id"] for key in listed(database, "--client", "kiosk-19999")] == [
        "kiosk-19999"
    ]
    one_in = time.process_time() - began - made_in - listed_in
    assert made_in < 15
    assert listed_in < 8
    assert one_in < 2


# --- expiry ---


def test_an_expired_key_is_answered_401_that_says_so(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """For sending as for reading; a revoked one is as unknown as ever."""
    old = made(either_collector, client.client_id, Terms(expires_at_ms=PAST_MS))
    chain = EventChain()
    message = "The API key expired at 2026-09-21T14:13:20Z."
    for answer in (get(old, "/v1/ping"), old.post(chain.batch(chain.events(1), old.client_id))):
        assert refused(answer) == (401, "expired_key", message)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert client.events() == []


def test_a_key_is_valid_until_it_expires(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """And not a second longer, whatever the collector remembers of it."""
    expires_at_ms = time.time_ns() // 1_000_000 + 1_500
    brief = made(either_collector, client.client_id, Terms(expires_at_ms=expires_at_ms))
    assert get(brief, "/v1/ping").status_code == 200
    deadline = time.monotonic() + 10
    while (answer := get(brief, "/v1/ping")).status_code == 200:
        assert time.time_ns() // 1_000_000 < expires_at_ms + 1_000
        assert time.monotonic() < deadline
    assert time.time_ns() // 1_000_000 >= expires_at_ms
    assert refused(answer)[1] == "expired_key"


@pytest.mark.parametrize(
    ("option", "value", "hours"), [("--days", "30", 720), ("--expires", "2999-01-01T00:00Z", None)]
)
def test_a_key_is_made_with_its_end(
    tmp_path: Path, option: str, value: str, hours: int | None
) -> None:
    """As a number of days, or a moment; `list` says when."""
    database = str(tmp_path / "c.sqlite3")
    now = time.time_ns() // 1_000_000
    done("create", "--client", "a", option, value, database=database)
    (key,) = listed(database)
    expected = 32_472_144_000_000 if hours is None else now + hours * HOUR_MS
    assert 0 <= key["expires_at_ms"] - expected < 60_000
    assert re.search(r"  expires 20\d\d-|  expires 2999-", done("list", database=database))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--days", "0"],
        ["--days", "1", "--expires", "2999-01-01"],
        ["--expires", "2020-01-01"],
        ["--expires", "soon"],
        ["--expires", "9999999-01-01"],
        ["--scope", "write"],
        ["--scope", "operate"],
        ["--output", "file"],
    ],
)
def test_a_wrong_option_makes_no_key(tmp_path: Path, arguments: list[str]) -> None:
    """Exit code 2."""
    database = str(tmp_path / "c.sqlite3")
    result = run("create", "--client", "a", *arguments, database=database)
    assert result.exit_code == 2, result.output
    assert listed(database) == []


# --- rotation ---


def test_a_rotated_key_works_through_the_overlap(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """The new one is like it; the former one has an end from then on."""
    database = either_collector.database_url
    (former,) = listed(database, "--client", client.client_id)
    now = time.time_ns() // 1_000_000
    rotated = json.loads(
        done("rotate", "--client", client.client_id, "--overlap", "2h", "--json",
             database=database)
    )  # fmt: skip
    assert rotated["replaces"] == former["id"]
    other = CollectorClient(client.url, client.client_id, rotated["key"])
    assert get(client, "/v1/ping").status_code == get(other, "/v1/ping").status_code == 200
    first, second = listed(database, "--client", client.client_id)
    assert 0 <= first["expires_at_ms"] - now - 2 * HOUR_MS < 60_000
    assert second["expires_at_ms"] is None
    again = run("rotate", "--client", client.client_id, database=database)
    assert again.exit_code == 1
    assert f"has the valid keys {first['id']}, {second['id']}; give" in again.stderr
    done("rotate", first["id"], "--overlap", "0s", "--days", "1", database=database)
    assert refused(get(client, "/v1/ping"))[1] == "expired_key"


def test_a_rotated_key_keeps_its_label_and_scopes(database: str) -> None:
    """An operator's too."""
    done("create", "--client", "a", "--scope", "send", "--label", "door", database=database)
    done("create", "--operator", database=database)
    done("rotate", 1, database=database)
    done("rotate", 2, database=database)
    _, _, sender, operator = listed(database)
    assert (sender["client_id"], sender["label"], sender["scopes"]) == ("a", "door", ["send"])
    assert (operator["operator"], operator["scopes"]) == (True, ["operate"])


def test_a_key_that_expires_is_not_followed_by_one_that_never_does(database: str) -> None:
    """Unless somebody says when; and an overlap lets no key live longer."""
    done("create", "--client", "a", "--days", "1", database=database)
    result = run("rotate", 1, database=database)
    assert (result.exit_code, "--days or --expires" in result.stderr) == (1, True)
    done("rotate", 1, "--overlap", "30d", "--days", "90", database=database)
    first, second = listed(database)
    assert first["expires_at_ms"] - first["created_at_ms"] <= 24 * HOUR_MS
    assert second["expires_at_ms"] - second["created_at_ms"] > 89 * 24 * HOUR_MS


@pytest.mark.parametrize("key_id", [7, 1, 2])
def test_only_a_valid_key_is_rotated(store: Store, database: str, key_id: int) -> None:
    """Not one that is unknown, revoked or expired."""
    keys = Keys(store)
    keys.create("a")
    keys.revoke(1)
    keys.create("a", terms=Terms(expires_at_ms=PAST_MS))
    result = run("rotate", key_id, database=database)
    assert result.exit_code == 1
    assert f"no valid key with the id {key_id}" in result.stderr
    assert len(keys.list()) == 2


def test_several_keys_are_revoked_at_once(database: str) -> None:
    """Those that can be are, and the others are named."""
    for _ in range(3):
        done("create", "--client", "a", database=database)
    assert done("revoke", 3, 1, database=database) == "key 1 is revoked\nkey 3 is revoked\n"
    result = run("revoke", 2, 3, 9, database=database)
    assert (result.exit_code, result.stdout) == (1, "key 2 is revoked\n")
    assert "with the id 3, 9" in result.stderr


# --- scopes ---


def test_a_key_that_only_sends_reads_nothing(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """403 says which scope is needed; what it sends is stored."""
    sender = made(either_collector, client.client_id, Terms(scopes=["send"]))
    chain = EventChain()
    assert sender.send(chain, chain.events(1))["accepted"] == 1
    said = "This needs an API key with the scope read; this one has only send."
    described = requests.get(f"{client.url}/openapi.json", timeout=10).json()
    checked = 0
    for path, methods in described["paths"].items():
        if "get" not in methods or "security" not in methods["get"] or path == "/v1/ping":
            continue
        needed = {"/v1/clients"}
        asked = path.format(session_id="s", trace_id="0" * 32, outbox_id=chain.outbox_id)
        answer = get(sender, asked, outbox_id=chain.outbox_id, seq="1", size="1", old="1", new="1",
                     session_id="session-1")  # fmt: skip
        if path in needed:
            assert refused(answer)[:2] == (403, "operator_only"), path
        else:
            assert refused(answer) == (403, "scope_required", said), path
        checked += 1
    assert checked > 15
    assert get(sender, "/v1/ping").status_code == 200
    assert len(client.events()) == 1


def test_a_key_that_only_reads_sends_nothing(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """By neither protocol."""
    reader = made(either_collector, client.client_id, Terms(scopes=["read"]))
    chain = EventChain()
    said = "This needs an API key with the scope send; this one has only read."
    answer = reader.post(chain.batch(chain.events(1), client.client_id))
    assert refused(answer) == (403, "scope_required", said)
    answer = requests.post(
        f"{client.url}/v1/traces",
        json={},
        headers=reader.headers,
        timeout=10,
    )
    assert (answer.status_code, answer.json()["message"]) == (403, said)
    assert reader.events() == client.events() == []


def test_a_key_of_no_known_scope_does_nothing(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """A later version may have written what this one does not know."""
    key = f"trk_{uuid.uuid4().hex}"
    row = {
        "client_id": client.client_id,
        "key_hash": hashlib.sha256(key.encode()).hexdigest(),
        "created_at_ms": 1,
        "scopes": "export",
    }
    with either_collector.store() as found, found.writing("test") as connection:
        connection.execute(insert(api_keys), row)
    odd = CollectorClient(client.url, client.client_id, key)
    chain = EventChain()
    assert refused(get(odd, "/v1/events"))[:2] == (403, "scope_required")
    assert refused(odd.post(chain.batch(chain.events(1), client.client_id)))[2].endswith("none.")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["expired", "only sends"])
def test_pages_follow_scopes_and_expiry(
    either_collector: CollectorProcess, client: CollectorClient, what: str, when: str
) -> None:
    """At the door, and for who is inside, whichever version let them in."""
    terms = Terms(expires_at_ms=PAST_MS) if what == "expired" else Terms(scopes=["send"])
    sender = made(either_collector, client.client_id, terms)
    visitor = TeamVisitor.of(either_collector)
    if when == "before":
        answer = visitor.sign_in(sender.api_key)
        assert answer.status == 403
        assert ("expired" if what == "expired" else "scope read") in answer.text
        return
    with either_collector.store() as found:
        key = Keys(found).find(sender.api_key)
        assert key is not None
        visitor.cookies[f"tracker-ui-{visitor.port}"] = Sessions(found).begin(key)
    assert visitor.get("/ui/").status == 303


def test_the_page_of_keys_says_what_each_may_do(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """And which ones have expired."""
    made(either_collector, client.client_id, Terms("old one", PAST_MS, ["send"]))
    operator = TeamVisitor.of(either_collector, either_collector.create_key(None))
    page = operator.get("/ui/keys").text
    (row,) = (each for each in page.split("<tr data-row>") if "old one" in each)
    assert "expired" in row
    assert '<td class="extra">send</td>' in row


# --- use ---


def test_use_is_noted_and_written_when_the_collector_stops(tmp_path: Path) -> None:
    """By a request of any kind; a key that nobody used has none."""
    began = time.time_ns() // 1_000_000
    with ForkedCollector(tmp_path) as collector:
        collector.get("/v1/ping")
        collector.create_key("idle")
    used, idle = listed(collector.database_url)
    assert began <= used["last_used_at_ms"] <= time.time_ns() // 1_000_000
    assert idle["last_used_at_ms"] is None
    assert re.search(r"  used \S+Z\n", done("list", database=collector.database_url))


def test_use_is_written_once_in_some_minutes_by_all_together(store: Store) -> None:
    """However many collectors note it, and however often."""
    now = PAST_MS
    first, second = (KeyUses(store, lambda: now) for _ in range(2))
    seen = []
    for minutes in (0, 1, 9, 10, 11, 25):
        now = PAST_MS + minutes * 60_000
        for uses in (first, second):
            for _ in range(3):
                uses.note(7)
            uses.write()
        with store.reading() as connection:
            seen.append(connection.execute(select(key_uses)).one())
    assert COARSE_MS == 600_000
    assert [at - PAST_MS for _, at in seen] == [0, 0, 0, 600_000, 600_000, 1_500_000]
    first.close()
    second.close()


def test_use_that_could_not_be_written_is_kept(tmp_path: Path) -> None:
    """The next attempt writes it."""
    path = tmp_path / "c.sqlite3"
    opened = Store(path)
    uses = KeyUses(opened, lambda: PAST_MS)
    uses.note(7)
    with opened.writing("test") as connection:
        connection.exec_driver_sql("ALTER TABLE key_uses RENAME TO away")
    uses.write()
    with opened.writing("test") as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO key_uses")
    uses.close()
    with opened.reading() as connection:
        assert connection.execute(select(key_uses)).all() == [(7, PAST_MS)]
    opened.close()


@pytest.mark.slow
def test_no_receipt_waits_for_the_use_of_a_key(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Not even while nobody can write it."""
    url = postgres_server.new_database()
    with ForkedCollector(tmp_path, database_url=url) as collector:
        chain, client = EventChain(), collector.client("a")
        with collector.store() as found, found.writing("keys"):
            assert client.send(chain, chain.events(1))["accepted"] == 1
    assert all(key["last_used_at_ms"] for key in listed(url, "--client", "a"))


# --- the record ---


def test_every_change_is_recorded_without_a_key(database: str, tmp_path: Path) -> None:
    """What, when, which key, whose, by whom; neither a key nor its hash."""
    began = time.time_ns() // 1_000_000
    secrets = [done("create", "--client", "a", "--days", "2", database=database).strip()]
    secrets.append(done("create", "--operator", database=database).strip())
    secrets.append(done("rotate", 2, database=database).strip())
    text = done("create", "--clients", "-", database=database, given="b\nc")
    secrets += [row["key"] for row in lines_of(text)]
    done("revoke", 1, 3, database=database)
    output = done("audit", "--json", database=database)
    changes = json.loads(output)
    assert [(each["change"], each["key_id"], each["client_id"]) for each in changes] == [
        ("created", 1, "a"),
        ("created", 2, None),
        ("created", 3, None),
        ("rotated", 2, None),
        ("created", 4, "b"),
        ("created", 5, "c"),
        ("revoked", 1, "a"),
        ("revoked", 3, None),
    ]
    assert re.fullmatch(r"may send, read; expires \S+Z", changes[0]["detail"])
    assert re.fullmatch(r"replaced by key 3, expires \S+Z", changes[3]["detail"])
    assert {each["changed_by"] for each in changes} == {pwd.getpwuid(os.getuid()).pw_name}
    assert all(began <= each["changed_at_ms"] <= began + 600_000 for each in changes)
    as_text = done("audit", "--client", "a", database=database).splitlines()
    assert [line.split("  ")[2:5] for line in as_text] == [
        ["created", "1", "a"],
        ["revoked", "1", "a"],
    ]
    opened = Store(database)
    with opened.reading() as connection:
        stored = repr(connection.execute(select(key_changes)).all())
    opened.close()
    for secret in secrets:
        assert secret not in output + stored
        assert hashlib.sha256(secret.encode()).hexdigest() not in output + stored


def test_a_change_that_fails_is_not_recorded(store: Store) -> None:
    """And one that is recorded has happened."""
    keys = Keys(store)
    with pytest.raises(ValueError, match="scope operate"):
        keys.create("a", terms=Terms(scopes=["operate"]))
    assert keys.revoke_all([1, 2]) == []
    assert list(recorded(store)) == []


@pytest.mark.slow
def test_postgresql_notifies_of_every_change_when_it_is_committed(
    postgres_server: PostgresServer,
) -> None:
    """So that those who remember keys forget them; neither a use nor a new key is a change."""
    import psycopg

    url = postgres_server.new_database()
    opened = Store(url)
    keys = Keys(opened)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as listening:
        heard: list[object] = []
        listening.add_notify_handler(heard.append)
        listening.execute(f"LISTEN {CHANNEL}")

        def expect(count: int) -> None:
            deadline = time.monotonic() + 10
            while len(heard) < count and time.monotonic() < deadline:
                listening.execute("SELECT 1")
            assert len(heard) == count

        key, _ = keys.create("a")
        uses = KeyUses(opened)
        uses.note(1)
        uses.close()
        keys.find(key)
        keys.add({"b": "trk_b"}, Terms())
        keys.rotate(1, HOUR_MS)
        expect(1)
        keys.revoke(1)
        expect(2)
    opened.close()


def test_what_is_known_of_a_key_is_not_the_key() -> None:
    """Its description can be logged."""
    assert set(ApiKey.__dataclass_fields__) == {
        *("id", "client_id", "label", "created_at_ms", "revoked_at_ms", "expires_at_ms"),
        "scopes",
    }
