"""`APIConfig`: where values come from, what is refused, and that the key stays hidden."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker, APIConfig, ConfigurationError

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

KEY = "tk_3x4mple_of_a_secret"


def problem(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        APIConfig(**{"api_key": KEY, "client_id": "c", **settings})
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# --- where values come from ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variable", "from_environment", "value", "argument"),
    [
        ("api_key", "SDK_API_KEY", "env-key", "env-key", "other-key"),
        ("client_id", "SDK_CLIENT_ID", "env-client", "env-client", "other"),
        ("base_url", "SDK_BASE_URL", "https://env.example/", "https://env.example", "https://b.c"),
        ("disabled", "SDK_DISABLED", "yes", True, False),
        ("allow_insecure_http", "SDK_ALLOW_INSECURE_HTTP", "TRUE", True, False),
    ],
)
def test_an_argument_beats_the_environment_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str,
    from_environment: str,
    value: object,
    argument: object,
) -> None:
    """Each setting with a variable follows the same order."""
    others = {"api_key": "k", "client_id": "c"}
    others.pop(name, None)
    if name != "api_key":
        default = getattr(APIConfig(**others), name)  # type: ignore[arg-type]  # one str at a time
        assert default != value
    monkeypatch.setenv(variable, from_environment)
    assert getattr(APIConfig(**others), name) == value  # type: ignore[arg-type]  # as above
    given = APIConfig(**{**others, name: argument})  # type: ignore[arg-type]  # as above
    assert getattr(given, name) == argument


def test_the_outbox_path_follows_the_same_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment's path, unless one is given; a leading ~ is the home folder."""
    monkeypatch.setenv("SDK_OUTBOX_PATH", "~/env.sqlite3")
    assert APIConfig(api_key="k", client_id="c").outbox_path == tmp_path / "home" / "env.sqlite3"
    given = APIConfig(api_key="k", client_id="c", outbox_path=tmp_path / "given")
    assert given.outbox_path == tmp_path / "given"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `SDK_BASE_URL= python app.py`."""
    for variable in (
        *("SDK_BASE_URL", "SDK_CLIENT_ID", "SDK_DISABLED", "SDK_OUTBOX_PATH"),
        "SDK_RETENTION",
    ):
        monkeypatch.setenv(variable, "")
    assert APIConfig(api_key="k").base_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize("text", ["0", "false", "No", "off", ""])
def test_a_flag_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The usual words for no are understood."""
    monkeypatch.setenv("SDK_DISABLED", text)
    assert APIConfig(api_key="k", client_id="c").disabled is False


# --- what is refused ----------------------------------------------------------------------------


def test_a_missing_key_is_refused_with_the_ways_to_give_one() -> None:
    """Variable, argument, and the command that makes a key."""
    with pytest.raises(ConfigurationError) as caught:
        APIConfig()
    assert str(caught.value) == (
        "no API key: set the environment variable SDK_API_KEY, or SDK_API_KEY_FILE to the path of "
        "a file that holds one, or pass APIConfig(api_key=...); `tracker-collector keys create` "
        "makes one"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key": ""}, "no API key"),
        ({"api_key": 7}, "api_key is of type int; give a str"),
        ({"api_key": f"{KEY} {KEY}"}, "api_key has white space, control or non-AS"),
        ({"api_key": f"{KEY}é"}, "api_key has white space, control or non-ASCII"),
        ({"api_key": f"{KEY}\r\nX: y"}, "api_key has white space, control or non-A"),
        ({"api_key": " \n"}, "api_key has white space"),
        ({"client_id": "x" * 257}, "client_id: has 257 characters; at most 256"),
        ({"client_id": 7}, "client_id: is of type int; give a str"),
        ({"client_id": "é"}, "client_id is 'é'; give printable ASCII"),
        ({"client_id": "a\nb"}, "client_id is 'a\\nb'; give printable ASCII"),
        ({"client_id": " a"}, "without white space at the ends"),
        ({"base_url": 7}, "base_url is of type int; give a str"),
        ({"base_url": "ftp://localhost"}, "with the scheme 'ftp'; give https://host or http://lo"),
        ({"base_url": "localhost:8080"}, "with the scheme 'localhost'; give https://host"),
        ({"base_url": "collector.example"}, "with the scheme ''; give https://host"),
        ({"base_url": "https://"}, "give scheme, host, optional port and path prefix in ASCII"),
        ({"base_url": "https://h/?a=b"}, "without spaces, query or fragment"),
        ({"base_url": "https://h/#a"}, "without spaces, query or fragment"),
        ({"base_url": "https://my host"}, "without spaces, query or fragment"),
        ({"base_url": "https://h/a b"}, "without spaces, query or fragment"),
        ({"base_url": "https://é.example"}, "in ASCII"),
        ({"base_url": "https://[::1"}, "base_url is not a URL: "),
        ({"base_url": "https://h:port"}, "base_url is not a URL: "),
        ({"base_url": "https://h:99999"}, "base_url is not a URL: "),
        ({"base_url": f"https://me:{KEY}@h"}, "contains credentials (an @); give the key"),
        ({"base_url": f"https://{KEY}@h"}, "contains credentials (an @); give the key"),
        ({"base_url": f"me:{KEY}@h"}, "contains credentials (an @); give the key"),
        ({"base_url": "http://10.0.0.1"}, "plain http would send the API key unencrypted"),
        ({"base_url": "http://collector.example:80/x"}, "Use https://, or set allow_insecure_htt"),
        ({"outbox_path": 7}, "outbox_path is of type int; give a path"),
        ({"outbox_path": b"x"}, "outbox_path is of type bytes; give a path"),
        ({"outbox_path": "a\0"}, "outbox_path must be text without NUL"),
        ({"outbox_path": ":memory:"}, "give the path of a file on a disk"),
        ({"outbox_path": "file:x?mode=rw"}, "give the path of a file on a disk"),
        ({"outbox_path": "~nobody-of-that-name/x"}, "outbox_path is '~nobody-"),
        ({"disabled": "perhaps"}, "disabled is 'perhaps'; give 1 or 0"),
        ({"allow_insecure_http": 2}, "allow_insecure_http is 2; give 1"),
        ({"durability": "none"}, "durability is 'none'; give one of 'full', 'process'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; give one of 'degrade', 'raise'"),
        ({"outbox_full": None}, "outbox_full is None; give one of 'refuse', 'discard_oldest'"),
        ({"max_event_bytes": 1023}, "max_event_bytes is 1023; give an int from 1,024 to 4,190,208"),
        ({"batch_max_events": 501}, "batch_max_events is 501; give an int from 1 to 500"),
        ({"batch_max_events": True}, "batch_max_events is True; give an int from 1 to 500"),
        ({"batch_max_bytes": 2**22 + 1}, "give an int from 1,052,672 to 4,194,304"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0; give an int from 1 to 5,000"),
        ({"memory_buffer_events": -1}, "memory_buffer_events is -1; give an int from 0 to 1,000"),
        ({"max_outbox_bytes": 1000}, "max_outbox_bytes is 1000; give an int from 1,048,576"),
        ({"flush_interval": -1}, "flush_interval is -1; give a number from 0 to 3600"),
        ({"flush_interval": float("nan")}, "flush_interval is nan; give a number from 0 to 3600"),
        ({"connect_timeout": 0}, "connect_timeout is 0; give a number from 0.001 to 3600"),
        ({"read_timeout": "5"}, "read_timeout is '5'; give a number from 0.001 to 3600"),
        ({"total_timeout": None}, "total_timeout is None; give a number from 0.001 to 86400"),
        ({"backoff_base": True}, "backoff_base is True; give a number from 0.001 to 3600"),
        ({"backoff_cap": float("inf")}, "backoff_cap is inf; give a number from 0.001 to 86400"),
        ({"retention_days": -1}, "retention_days is -1; give a number from 0 to 36500"),
        ({"retention": "gdpr"}, "retention is 'gdpr'; give 'eu_ai_act' or day"),
        ({"retention": 190}, "retention is of type int; give days by event type, as in {'mess"),
        ({"exit_timeout": 61}, "exit_timeout is 61; give a number from 0 to 60"),
        ({"ca_bundle": "/no/such.pem"}, "ca_bundle is '/no/such.pem'; give the"),
        ({"ca_bundle": "/"}, "ca_bundle is '/'; give the path of a PEM file"),
        ({"ca_bundle": "\0"}, "ca_bundle is '\\x00'; give the path"),
        ({"proxies": "http://p"}, "proxies must map schemes to proxy URLs, as in {'https': 'http"),
        ({"proxies": {"https": None}}, "proxies must map schemes to proxy URLs"),
    ],
)
def test_an_impossible_value_is_refused_with_what_is_allowed(
    settings: dict[str, Any], words: str
) -> None:
    """Each message names the setting, shows the value (but never the key), and says what to do."""
    assert words in problem(**settings)


def test_a_wrong_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who set the variable can find it by the message."""
    monkeypatch.setenv("SDK_BASE_URL", "ftp://localhost")
    assert "SDK_BASE_URL" in problem()


# --- base URLs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://h", "https://h"),
        ("https://h/", "https://h"),
        ("https://h///", "https://h"),
        (" https://h\n", "https://h"),
        ("HTTPS://Collector.Example:8443/In/", "https://collector.example:8443/In"),
        ("https://h/prefix/deeper/", "https://h/prefix/deeper"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://[2001:DB8::1]/", "https://[2001:db8::1]"),
    ],
)
def test_base_urls_are_kept_without_trailing_slash(given: str, kept: str) -> None:
    """Prefix, port and IPv6 brackets survive; scheme and host are in lower case."""
    assert APIConfig(api_key="k", client_id="c", base_url=given).base_url == kept


def test_plain_http_to_another_host_can_be_allowed() -> None:
    """On a network that is trusted, by an explicit word."""
    settings = APIConfig(
        api_key="k", client_id="c", base_url="http://10.0.0.1", allow_insecure_http=True
    )
    assert settings.base_url == "http://10.0.0.1"


# --- the key ------------------------------------------------------------------------------------


def test_the_key_is_trimmed() -> None:
    """Secrets read from files often end in a newline."""
    assert APIConfig(api_key=f" {KEY}\n", client_id="c").api_key == KEY


def test_the_key_is_in_no_text_about_the_config(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither repr, str, format, the tracker's repr, nor the messages of a contradiction."""
    settings = config(api_key=KEY)
    shown = [repr(settings), str(settings), f"{settings}", f"{settings!r}"]
    with caplog.at_level(logging.DEBUG), AgentPerformanceTracker(settings) as tracker:
        shown.append(repr(tracker))
        with pytest.raises(ConfigurationError) as caught:
            AgentPerformanceTracker(dataclasses.replace(settings, base_url="https://other"))
        shown.append("".join(traceback.format_exception(caught.value)))
        with pytest.raises(dataclasses.FrozenInstanceError) as frozen:
            settings.api_key = "x"  # type: ignore[misc]  # that it is frozen is the point
        shown.append(str(frozen.value))
    assert not [text for text in [*shown, caplog.text] if KEY in text]


# --- as a value ---------------------------------------------------------------------------------


def test_a_config_is_a_value(config: MakeConfig) -> None:
    """Equal settings are equal and hash alike; a pickled copy is equal, key included."""
    settings = config(proxies={"https": "http://p:1"}, api_key=KEY)
    assert settings == config(proxies={"https": "http://p:1"}, api_key=KEY)
    assert hash(settings) == hash(config(proxies={"https": "http://p:1"}, api_key=KEY))
    copy = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own bytes
    assert copy == settings
    assert copy.api_key == KEY


def test_a_changed_copy_is_checked_again(config: MakeConfig) -> None:
    """dataclasses.replace changes one setting, and refuses what the constructor would."""
    settings = config()
    assert dataclasses.replace(settings, flush_interval=2).flush_interval == 2.0
    assert dataclasses.replace(settings) == settings
    with pytest.raises(ConfigurationError, match="flush_interval is -2"):
        dataclasses.replace(settings, flush_interval=-2)


def test_an_application_may_derive_a_config_of_its_own() -> None:
    """With a field that the SDK does not know, and which it leaves alone."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(APIConfig):
        colour: str = "blue"

    mine = Mine(api_key="k", client_id="c", flush_interval=2)
    assert (mine.colour, mine.flush_interval) == ("blue", 2.0)
    assert dataclasses.replace(mine, colour="red").flush_interval == 2.0


def test_the_callers_proxies_are_not_shared(config: MakeConfig) -> None:
    """Changing the dict afterwards does not change the configuration."""
    proxies = {"https": "http://p:1"}
    settings = config(proxies=proxies)
    proxies["https"] = "http://evil:1"
    assert settings.proxies == {"https": "http://p:1"}


# --- the outbox's default place -----------------------------------------------------------------


def test_the_default_outbox_lies_in_the_users_data_folder(tmp_path: Path) -> None:
    """By the platform's conventions, in a folder of our own."""
    path = APIConfig(api_key="k", client_id="kiosk-17").outbox_path
    assert path.parent == tmp_path / "data" / "agent-tracking-sdk"
    assert path.name.startswith("kiosk-17-")
    assert path.suffix == ".sqlite3"


def test_each_base_url_and_client_id_has_an_outbox_of_its_own() -> None:
    """Events for one collector must never reach another; the key does not matter."""
    combinations = [("https://a", "c"), ("https://b", "c"), ("https://a", "d"), ("https://a", "C")]
    paths = {
        str(APIConfig(api_key="k", base_url=url, client_id=name).outbox_path).lower()
        for url, name in combinations
    }
    assert len(paths) == len(combinations)
    first = APIConfig(api_key="k", base_url="https://a/", client_id="c")
    second = APIConfig(api_key="other", base_url="https://a", client_id="c")
    assert first.outbox_path == second.outbox_path


@pytest.mark.parametrize("client_id", ["../../etc/passwd", "..", "a/b", ".", "-rf", "x" * 256])
def test_a_client_id_cannot_lead_out_of_the_folder(client_id: str, tmp_path: Path) -> None:
    """Whatever it contains, the file lies in the data folder, with a name that fits."""
    path = APIConfig(api_key="k", client_id=client_id).outbox_path
    assert path.parent == tmp_path / "data" / "agent-tracking-sdk"
    assert len(path.name) < 100
    assert not path.name.startswith((".", "-rf"))


def test_a_relative_path_is_settled_when_the_config_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A later change of folder does not move the outbox, and links in the path are resolved."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    settings = APIConfig(api_key="k", client_id="c", outbox_path=Path("link/x.sqlite3"))
    os.chdir("/")
    assert settings.outbox_path == tmp_path / "real" / "x.sqlite3"


# --- disabled -----------------------------------------------------------------------------------


def test_disabled_needs_no_key_and_touches_no_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SDK_DISABLED=1 makes every call do nothing, in a test run or where nothing is set up."""
    monkeypatch.setenv("SDK_DISABLED", "1")
    with AgentPerformanceTracker() as tracker:
        session = tracker.start_conversation("agent")
        assert tracker.log_user_message(session, "hello")
        assert tracker.flush().pending == 0
    assert list(tmp_path.rglob("*")) == []


# --- the chain key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("é" * 8, "é".encode() * 8),
        (f"  {KEY}\n", KEY.encode()),
        (b"\n" * 16, b"\n" * 16),
    ],
)
def test_a_chain_key_is_text_or_bytes(given: str | bytes, kept: bytes) -> None:
    """White space around a text does not count: secrets read from files end in newlines."""
    config = APIConfig(api_key="k", client_id="c", chain_key=given)
    assert config.chain_key == kept
    assert dataclasses.replace(config, client_id="d").chain_key == kept


def test_a_chain_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument beats it; an empty one is none."""
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY)
    assert APIConfig(api_key="k", client_id="c").chain_key == KEY.encode()
    assert APIConfig(api_key="k", client_id="c", chain_key=b"b" * 16).chain_key == b"b" * 16
    monkeypatch.setenv("SDK_CHAIN_KEY", "")
    assert APIConfig(api_key="k", client_id="c").chain_key is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("short", "chain_key has 5 bytes; give 16 or more"),
        (b"", "has 0 bytes"),
        (7, "is of type int; give a str or bytes"),
        ("\ud800" * 16, "has characters that UTF-8 cannot encode"),
    ],
)
def test_an_impossible_chain_key_is_refused_and_not_shown(key: Any, said: str) -> None:
    """As for the API key: no message holds it."""
    message = problem(chain_key=key)
    assert said in message
    assert not isinstance(key, str) or key not in message


def test_the_chain_key_is_in_no_repr() -> None:
    """Nor its name, which would tell that there is one."""
    config = APIConfig(api_key="k", client_id="c", chain_key=KEY)
    assert "chain_key=" not in repr(config)
    assert KEY not in f"{config} {config!r}"
