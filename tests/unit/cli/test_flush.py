"""`tracker-sync flush`: what it prints and how it exits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import an_event, call, call_json, fill
from tests.support.server import answer, error, receipt
from tests.support.uploads import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer

KEY = "the-secret-key"


@pytest.fixture
def path(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Three pending events, for the scripted server."""
    monkeypatch.setenv("SDK_API_KEY", KEY)
    made = config(base_url=scripted_server.url)
    fill(made, [an_event(data={"content": str(number)}) for number in range(3)])
    return made.outbox_path


def in_vain(path: Path, said: str, *options: str) -> Result:
    """Flush for a moment, again and again, until the server has answered: the result then."""
    results: list[Result] = []

    def answered() -> bool:
        results.append(call("--outbox", path, "flush", "--timeout", "0.2", *options))
        assert results[-1].exit_code == 1
        return said in results[-1].stdout

    wait_until(answered, said, timeout=60)
    return results[-1]


@pytest.mark.parametrize("command", [[], ["flush"], ["flush", "--timeout", "30"]], ids=str)
def test_all_is_delivered(path: Path, scripted_server: ScriptedServer, command: list[str]) -> None:
    """Exit code 0, one line; the same without a command."""
    result = call("--outbox", path, *command)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "3 events delivered, 0 pending, 0 dead\n"
    assert [event["seq"] for event in scripted_server.delivered] == [1, 2, 3]
    assert scripted_server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_nothing_to_do(path: Path, scripted_server: ScriptedServer) -> None:
    """The second time no server is asked."""
    call("--outbox", path)
    before = len(scripted_server.requests)
    assert call("--outbox", path).stdout == "0 events delivered, 0 pending, 0 dead\n"
    assert len(scripted_server.requests) == before


def test_dead_letters_alone_are_no_failure(path: Path, scripted_server: ScriptedServer) -> None:
    """Exit code 0, but they are mentioned."""
    scripted_server.script(receipt(rejected={"1": ("invalid_event", "odd")}))
    result = call("--outbox", path)
    assert result.exit_code == 0
    assert "2 events delivered, 0 pending, 1 dead\n" in result.stdout
    assert "tracker-sync dead list" in result.stdout


def test_a_refused_key(path: Path, scripted_server: ScriptedServer) -> None:
    """Exit code 1 when time is up; the cause and what to do, and never the key."""
    scripted_server.script(otherwise=error(401, "unauthorized", f"{KEY} is no key"))
    result = in_vain(path, "the server refuses the API key")
    assert "0 events delivered, 3 pending, 0 dead\n" in result.stdout
    assert "tracker-sync doctor" in result.stdout
    assert KEY not in result.output
    assert call_json("--outbox", path, "status")["pending"] == 3


def test_json_has_the_figures_and_the_last_error(
    path: Path, scripted_server: ScriptedServer
) -> None:
    """The same figures, and the last error while anything is pending."""
    scripted_server.script(otherwise=answer(200, "<html>welcome to the hotel</html>"))
    found = json.loads(in_vain(path, "without a valid receipt", "--json").stdout)
    assert (found["outbox"], found["delivered"], found["pending"]) == (str(path), 0, 3)
    assert "without a valid receipt" in found["last_error"]
    assert found["last_error_ms"] > 0
    scripted_server.script(otherwise=receipt())
    assert call_json("--outbox", path, "flush") == {
        "outbox": str(path),
        "delivered": 3,
        "pending": 0,
        "dead": 0,
        "last_error": None,
        "last_error_ms": None,
        "waits_because": None,
        "held": False,
    }


@pytest.mark.parametrize("command", [[], ["flush"], ["run"]], ids=str)
def test_a_wrong_configuration_exits_with_2(
    path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Exit code 2: no key, a disabled tracker, somebody else's outbox, plain http."""
    for settings, said in (
        ({"SDK_API_KEY": ""}, "SDK_API_KEY"),
        ({"SDK_DISABLED": "1"}, "disabled by SDK_DISABLED"),
        ({"SDK_CLIENT_ID": "somebody-else"}, "tracker-sync rebind"),
        ({"SDK_BASE_URL": "http://example.com"}, "SDK_ALLOW_INSECURE_HTTP"),
    ):
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            result = call("--outbox", path, *command)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert KEY not in result.output
