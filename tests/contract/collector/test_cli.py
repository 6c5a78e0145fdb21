"""The command line of `tracker-collector`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from tests.support.collector import (
    CollectorClient,
    EventChain,
    ForkedCollector,
    free_port,
)
from tests.support.device_tree import DeviceTree, new_key
from tracker.collector.main import cli
from tracker.evidence.verifier import parse_key

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "c.sqlite3"


def run(*arguments: str, database: Path | None = None) -> Result:
    chosen = ["--database", str(database)] if database else []
    return CliRunner().invoke(cli, [*arguments, *chosen])


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tracker.collector.main", *arguments],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_made_key_opens_the_running_collector(tmp_path: Path) -> None:
    """`keys create` works beside `serve`, and what it prints is the key and nothing else."""
    with ForkedCollector(tmp_path) as collector:
        made = run("keys", "create", "--client", "kiosk-17", database=collector.database)
        assert made.exit_code == 0
        key = made.stdout.strip()
        assert re.fullmatch(r"trk_[\w-]{43}", key)
        client = CollectorClient(collector.url, "kiosk-17", key)
        chain = EventChain()
        assert client.send(chain, chain.events(1))["accepted"] == 1
        listed = run("keys", "list", "--json", database=collector.database)
        (key_id,) = [k["id"] for k in json.loads(listed.stdout) if k["client_id"] == "kiosk-17"]
        assert run("keys", "revoke", str(key_id), database=collector.database).exit_code == 0
        with pytest.raises(requests.HTTPError, match="401"):
            client.get("/v1/ping")


def test_keys_are_listed_without_the_keys(database: Path) -> None:
    """Id, client, label and dates; the key was shown once and never again."""
    made = run("keys", "create", "--client", "a", "--label", "door", "--json", database=database)
    described = json.loads(made.stdout)
    key = described.pop("key")
    run("keys", "create", "--client", "b", database=database)
    assert run("keys", "revoke", "2", database=database).exit_code == 0
    as_json = run("keys", "list", "--json", database=database)
    first, second = json.loads(as_json.stdout)
    assert first == described
    assert (first["client_id"], first["label"], first["revoked_at_ms"]) == ("a", "door", None)
    assert second["revoked_at_ms"] >= second["created_at_ms"] > 1_700_000_000_000
    as_text = run("keys", "list", database=database).stdout.splitlines()
    assert re.fullmatch(r"1  a  created \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  valid  door", as_text[0])
    assert re.fullmatch(r"2  b  created \S+  revoked \d{4}-\S+Z", as_text[1])
    assert key not in as_json.stdout + "".join(as_text)


def test_an_operators_key_is_no_clients(tmp_path: Path) -> None:
    """It is listed as what it is, reads, and is revoked like any other."""
    with ForkedCollector(tmp_path) as collector:
        database = collector.database
        made = run("keys", "create", "--operator", "--label", "board", database=database)
        operator = CollectorClient(collector.url, collector.client_id, made.stdout.strip())
        assert operator.get("/v1/clients")["clients"] == [collector.client_id]
        listed = json.loads(run("keys", "list", "--json", database=database).stdout)
        assert [(key["client_id"], key["operator"]) for key in listed] == [
            (collector.client_id, False),
            (None, True),
        ]
        assert "2  (operator)  created" in run("keys", "list", database=database).stdout
        assert run("keys", "revoke", "2", database=database).exit_code == 0
        with pytest.raises(requests.HTTPError, match="401"):
            operator.get("/v1/clients")


def test_a_user_is_erased_beside_the_running_collector(tmp_path: Path) -> None:
    """What no outbox holds any more; only with --yes, where nobody can be asked."""
    with ForkedCollector(tmp_path) as collector:
        client, chain = collector.client("kiosk-17"), EventChain()
        client.send(chain, [chain.event(user_id="u"), chain.event(user_id="v", session_id="s-2")])
        asked = ("erase", "u", "--client", "kiosk-17")
        assert run(*asked, database=collector.database).exit_code == 2
        done = run(*asked, "--yes", "--json", database=collector.database)
        assert (done.exit_code, json.loads(done.stdout)["erased"]) == (0, 1)
        again = run(*asked, "--yes", "--reason", "asked for", database=collector.database)
        assert (again.exit_code, again.stdout[:15]) == (0, "0 events erased")
        found = [event["data"] == {"erased": True} for event in client.events()]
        assert found == [True, False, False, False]


@pytest.mark.parametrize("arguments", [(), ("--operator", "--client", "a")])
def test_a_key_is_for_a_client_or_an_operator(database: Path, arguments: tuple[str, ...]) -> None:
    """One of the two, said plainly; no key is made."""
    made = run("keys", "create", *arguments, database=database)
    assert made.exit_code == 2
    assert "give either --client CLIENT_ID or --operator" in made.output
    assert run("keys", "list", database=database).stdout == ""


def test_revoking_what_is_not_there_fails(database: Path) -> None:
    """Exit code 1 and a message that names the id."""
    result = run("keys", "revoke", "7", database=database)
    assert result.exit_code == 1
    assert "7" in result.stderr


def test_the_witness_key_stays_the_same(tmp_path: Path) -> None:
    """The command prints what the running collector tells, under the name that it was given."""
    name = ["--witness-name", "example.com/w1"]
    database = tmp_path / "collector.sqlite3"
    before = run("witness-key", *name, database=database).stdout
    assert parse_key(before.strip()).name == "example.com/w1"
    file = tmp_path / "collector.sqlite3.witness-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in file.read_bytes()
    with ForkedCollector(tmp_path, arguments=name) as collector:
        assert requests.get(f"{collector.url}/v1/witness-key", timeout=10).text == before
        assert run("witness-key", *name, database=database).stdout == before
        other = ["--witness-key", str(tmp_path / "another.pem")]
        assert run("witness-key", *name, *other, database=database).stdout != before


def test_without_the_library_that_signs_the_collector_is_no_witness(database: Path) -> None:
    """It says so once, and stores batches as ever."""
    key = run("keys", "create", "--client", "a", database=database).stdout.strip()
    program = (
        "import sys; sys.modules['cryptography'] = None; "
        "from tracker.collector.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", "--database", str(database)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == (
            "warning: no head will be cosigned (the library cryptography is missing: "
            "pip install 'agent-tracking-sdk[evidence]')\n"
        )
        url = process.stderr.readline().removeprefix("listening on ").strip()
        device = DeviceTree()
        receipt = CollectorClient(url, "a", key).send(device, [device.event(), device.head()])
        assert (receipt["accepted"], "witness" in receipt) == (2, False)
        assert requests.get(f"{url}/v1/witness-key", timeout=10).status_code == 404
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_damaged_witness_key_is_named_and_stays(tmp_path: Path) -> None:
    """The collector does not start with another key: nobody would know it."""
    file = tmp_path / "c.sqlite3.witness-key"
    file.write_text("not a key")
    for command in ("witness-key", "serve"):
        port = ["--port", "0"] if command == "serve" else []
        refused = run(command, *port, database=tmp_path / "c.sqlite3")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert str(file) in refused.stderr.splitlines()[-1]
    assert file.read_text() == "not a key"


def test_a_database_that_is_no_file_has_no_place_for_a_witness_key() -> None:
    """It has to be given one."""
    shown = run("witness-key", "--database", "postgresql+psycopg://u@h/d")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "give --witness-key" in shown.stderr


def test_a_lost_key_is_replaced_by_an_operator(tmp_path: Path) -> None:
    """The outbox is bound to the new key from then on; the old one is remembered."""
    with ForkedCollector(tmp_path) as collector:
        database, client = collector.database, collector.client("kiosk-17")
        device = DeviceTree(new_key())
        client.send(device, [*device.events(2), device.head()])
        lost, device.key = device.verifier_key, new_key()
        outbox = ["outbox-key", "--client", "kiosk-17", "--outbox", device.outbox_id]
        replace = [*outbox, "--replace", str(device.verifier_key)]
        shown = run(*replace, database=database)
        assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
            [str(lost), "first"],
            [str(device.verifier_key), "operator"],
        ]
        assert shown.stdout == run(*outbox, database=database).stdout
        assert client.send(device, [device.head(2)])["witness"]["size"] == 3
        other = DeviceTree(new_key())
        for wrong in (str(other.verifier_key), "x", str(device.verifier_key)[:-1]):
            refused = run(*outbox, "--replace", wrong, database=database)
            assert (refused.exit_code, refused.stdout) == (2, "")
        unknown = ["outbox-key", "--client", "kiosk-17", "--outbox", other.outbox_id]
        refused = run(*unknown, "--replace", str(other.verifier_key), database=database)
        assert (refused.exit_code, "nothing of such an outbox" in refused.stderr) == (2, True)
        hexadecimal = ["--replace", lost.public_key.hex()]
        assert run(*outbox, *hexadecimal, database=database).stdout.count(str(lost)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--rate", "0"],
        ["--nonsense"],
        ["nonsense"],
        ["serve", "--database", "mysql://host/db"],
        ["keys", "create"],
        ["keys", "create", "--client", ""],
        ["keys", "create", "--client", "a\nb", "--database", "{tmp}/c.sqlite3"],
        ["keys", "create", "--client", "a", "--label", "x" * 257, "--database", "{tmp}/c.sqlite3"],
        ["keys", "create", "--client", "a", "--database", "sqlite://"],
        ["keys", "revoke", "x"],
        ["keys", "revoke", "0"],
        ["witness-key", "--witness-name", "a b", "--database", "{tmp}/c.sqlite3"],
        ["serve", "--witness-name", "a+b", "--port", "0", "--database", "{tmp}/c.sqlite3"],
        ["witness-key", "--witness-key", "{tmp}/no/folder", "--database", "{tmp}/c.sqlite3"],
        ["outbox-key", "--client", "a", "--database", "{tmp}/c.sqlite3"],
        ["serve", "--tsa", "file:///etc/passwd", "--port", "0", "--database", "{tmp}/c.sqlite3"],
    ],
)
def test_wrong_use_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    """And says what is wrong, without a traceback."""
    result = run(*[argument.replace("{tmp}", str(tmp_path)) for argument in arguments])
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_a_file_that_is_no_database_exits_with_1(tmp_path: Path) -> None:
    """One line, no traceback."""
    path = tmp_path / "letter"
    path.write_text("Dear Sir or Madam, " * 100)
    result = run("keys", "list", database=path)
    assert result.exit_code == 1
    assert result.stderr == "Error: the database failed: file is not a database\n"


def test_the_database_can_stand_in_the_environment(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLLECTOR_DATABASE_URL takes a URL as well as a path."""
    for value in (str(database), f"sqlite:///{database}"):
        monkeypatch.setenv("COLLECTOR_DATABASE_URL", value)
        assert run("keys", "create", "--client", "a").exit_code == 0
    assert len(json.loads(run("keys", "list", "--json", database=database).stdout)) == 2


def test_without_a_choice_the_database_is_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made there, folder and all."""
    monkeypatch.delenv("COLLECTOR_DATABASE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("keys", "list").exit_code == 0
    (found,) = tmp_path.rglob("collector.sqlite3")
    assert found.parent.name == "agent-tracking-sdk"


def test_serving_is_the_default_on_a_free_port_until_sigterm(database: Path) -> None:
    """Port 0 becomes a real one, the one line on stderr names it, and SIGTERM means exit 0."""
    process = start("--port", "0", "--database", str(database))
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.fullmatch(r"listening on (http://127\.0\.0\.1:[1-9]\d*)\n", line)
        assert match, line
        assert requests.get(match[1] + "/readyz", timeout=10).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_port_in_use_is_said_plainly(database: Path) -> None:
    """Exit code 1, one line with the port."""
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        process = start("serve", "--port", str(port), "--database", str(database))
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert stderr == f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_the_command_says_what_to_install(missing: str) -> None:
    """One line and exit code 2; fastapi and uvicorn are optional."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from tracker.collector.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "tracker-collector needs the extra: pip install 'agent-tracking-sdk[collector]'\n"
    )


def test_help_and_version_do_not_start_a_server() -> None:
    """Although serving is the default."""
    shown = run("--help")
    assert shown.exit_code == 0
    assert "keys" in shown.stdout
    assert "serve" in shown.stdout
    assert run("--version").stdout.startswith("tracker-collector, version ")
