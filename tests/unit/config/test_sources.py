"""Where settings come from: every one from an argument, the environment, a file or its default."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tracker import APIConfig, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = {item.name: item for item in dataclasses.fields(APIConfig)}
FUNCTIONS = {"before_record", "json_default", "may_upload", "redactors"}
"""What no text can stand for. Everything else has a variable and, but for one, a line in a file."""

PEM = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"
EXAMPLES: dict[str, tuple[str, str, object]] = {
    "api_key": ("key-2", '"key-2"', "key-2"),
    "api_key_file": ("key", '"key"', "key"),
    "client_id": ("c-2", '"c-2"', "c-2"),
    "base_url": ("https://x.example/", '"https://x.example/"', "https://x.example"),
    "protocol": ("otlp", '"otlp"', "otlp"),
    "otlp_headers": (
        "x-project-name=kiosk%2017,x-key=k",
        '{x-project-name = "kiosk 17", x-key = "k"}',
        {"x-project-name": "kiosk 17", "x-key": "k"},
    ),
    "otlp_resource": (
        "service.name=kiosk,team=a",
        '{"service.name" = "kiosk", team = "a"}',
        {"service.name": "kiosk", "team": "a"},
    ),
    "otlp_logs": ("1", "true", True),
    "otlp_skip": (
        "otel.span_started,otel.log",
        '["otel.span_started", "otel.log"]',
        ("otel.span_started", "otel.log"),
    ),
    "outbox_path": ("o.sqlite3", '"o.sqlite3"', "o.sqlite3"),
    "disabled": ("1", "true", True),
    "debug": ("1", "true", True),
    "durability": ("process", '"process"', "process"),
    "on_error": ("raise", '"raise"', "raise"),
    "allow_insecure_http": ("yes", "true", True),
    "max_event_bytes": ("2048", "2048", 2048),
    "batch_max_events": ("7", "7", 7),
    "batch_max_bytes": ("2_000_000", "2_000_000", 2_000_000),
    "flush_interval": ("0.25", "0.25", 0.25),
    "connect_timeout": ("3", "3", 3.0),
    "read_timeout": ("4.5", "4.5", 4.5),
    "total_timeout": ("1e2", "1e2", 100.0),
    "backoff_base": ("2", "2.0", 2.0),
    "backoff_cap": ("9", "9", 9.0),
    "requests_per_minute": ("60", "60", 60),
    "retention_days": ("30", "30", 30.0),
    "retention": (
        "message.logged=30, security.*=365",
        '{"message.logged" = 30, "security.*" = 365}',
        {"message.logged": 30.0, "security.*": 365.0, "compliance.*": 3650.0},
    ),
    "environment": ("production", '"production"', "production"),
    "release": ("1.4.2", '"1.4.2"', "1.4.2"),
    "tags": ("site=oslo,line=4", '{site = "oslo", line = "4"}', {"site": "oslo", "line": "4"}),
    "context": ("shift=night", '{shift = "night"}', {"shift": "night"}),
    "max_outbox_bytes": ("2000000", "2_000_000", 2_000_000),
    "outbox_full": ("discard_oldest", '"discard_oldest"', "discard_oldest"),
    "memory_buffer_events": ("5", "5", 5),
    "memory_buffer_bytes": ("6", "6", 6),
    "exit_timeout": ("0", "0", 0.0),
    "upload_bytes_per_second": ("20000", "20_000", 20_000),
    "upload_window": ("22:00-06:00", '"22:00-06:00"', "22:00-06:00"),
    "upload_outside_window": ("security.critical", '"security.critical"', "security.critical"),
    "ca_bundle": ("ca.pem", '"ca.pem"', "ca.pem"),
    "proxies": (
        "https=http://me:a=b@proxy:1,http=http://proxy:2",
        '{https = "http://me:a=b@proxy:1", http = "http://proxy:2"}',
        {"https": "http://me:a=b@proxy:1", "http": "http://proxy:2"},
    ),
    "redaction": ("off", '"off"', "off"),
    "secret_names": ("door_code, pin,", '["door_code", "pin"]', ("door_code", "pin")),
    "not_secret_names": ("auth", '["auth"]', ("auth",)),
    "capture_content": ("off", "false", False),
    "report_redactions": ("on", "true", True),
    "chain_key": ("k" * 16, f'"{"k" * 16}"', b"k" * 16),
    "signing_key": (PEM, f"'''{PEM}'''", PEM),
}
"""For each setting a text of the environment, a value of TOML, and what both stand for."""


@pytest.fixture(scope="module")
def certificates() -> bytes:
    """A CA's own certificate, PEM."""
    return trustme.CA().cert_pem.bytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificates: bytes) -> Path:
    """The working folder, which is also that of the file; with what some settings name."""
    (tmp_path / "ca.pem").write_bytes(certificates)
    (tmp_path / "key").write_text("key-of-the-file\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write the configuration file that the environment names."""
    path = folder / "tracker.toml"

    def write(text: str) -> Path:
        path.write_text(text)
        monkeypatch.setenv("SDK_CONFIG_FILE", "tracker.toml")
        return path

    return write


def made(*but: str, **given: Any) -> APIConfig:
    """Return a configuration in which only what it needs is given, and not the named settings."""
    needed = {"api_key": "key-1", "client_id": "c", "outbox_path": "/none/o.sqlite3"}
    but = (*but, "api_key") if "api_key_file" in but else but
    return APIConfig(**{**{name: needed[name] for name in needed if name not in but}, **given})


def value_of(config: APIConfig, name: str, folder: Path) -> object:
    """Return a setting; a path as its place in the folder."""
    value = getattr(config, name)
    return str(value.relative_to(folder)) if isinstance(value, Path) else value


def test_every_setting_has_an_example_here() -> None:
    """What follows is tried for each of them, so none can lack its variable or its line."""
    assert set(EXAMPLES) | FUNCTIONS | {"config_file"} == set(FIELDS)


def test_every_setting_is_documented() -> None:
    """`help(APIConfig)` says what each means."""
    described = re.findall(r"^    (\w+): ", inspect.getdoc(APIConfig) or "", re.MULTILINE)
    assert [name for name in described if name in FIELDS] == list(FIELDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_environment_beats_the_default(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is SDK_ and the setting's name in capitals."""
    text, _, expected = EXAMPLES[name]
    monkeypatch.setenv(f"SDK_{name.upper()}", text)
    config = made(name)
    assert value_of(config, name, folder) == expected
    assert config.origins[name] == ("environment", f"SDK_{name.upper()}")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_beats_the_default(name: str, folder: Path, file: Callable[[str], Path]) -> None:
    """Its line has the setting's name; the value is one of TOML."""
    _, written, expected = EXAMPLES[name]
    path = file(f"{name} = {written}\n")
    config = made(name)
    assert value_of(config, name, folder) == expected
    assert config.origins[name] == ("file", str(path))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_default_holds_where_nothing_else_is_said(name: str) -> None:
    """And is no example: otherwise the tests above would show nothing."""
    if name in ("api_key", "api_key_file", "client_id", "outbox_path"):
        return  # these are needed, or made
    config = made()
    assert config.origins[name] == ("default", "")
    assert getattr(config, name) != EXAMPLES[name][2]


def test_an_argument_beats_the_environment_which_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, file: Callable[[str], Path]
) -> None:
    """An argument does so even if it says what the default is."""
    file("flush_interval = 3\nread_timeout = 3\ntotal_timeout = 3\n")
    monkeypatch.setenv("SDK_FLUSH_INTERVAL", "2")
    monkeypatch.setenv("SDK_READ_TIMEOUT", "2")
    config = made(flush_interval=0.5)
    assert (config.flush_interval, config.read_timeout, config.total_timeout) == (0.5, 2, 3)
    sources = [config.origins[name].source for name in ("flush_interval", "read_timeout")]
    assert [*sources, config.origins["total_timeout"].source] == ["argument", "environment", "file"]


def test_the_file_can_be_named_by_an_argument(
    monkeypatch: pytest.MonkeyPatch, file: Callable[[str], Path], folder: Path
) -> None:
    """Which then beats the variable; the configuration says which file it was."""
    file("flush_interval = 3\n")
    other = folder / "other.toml"
    other.write_text("flush_interval = 4\n")
    config = made(config_file="other.toml")
    assert (config.flush_interval, config.config_file) == (4.0, other)
    assert config == made(flush_interval=4.0)  # where it was said makes no difference
    monkeypatch.setenv("SDK_CONFIG_FILE", "")
    assert made().flush_interval == 0.5


def test_relative_paths_in_a_file_start_at_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that cron, a service and a shell mean the same file. Those of variables do not."""
    (folder / "etc").mkdir()
    (folder / "etc" / "t.toml").write_text(
        'outbox_path = "../data/o.sqlite3"\napi_key_file = "~/key"\nca_bundle = "../ca.pem"\n'
    )
    (folder / "home").mkdir()
    (folder / "home" / "key").write_text("key-at-home")
    monkeypatch.chdir("/")
    config = APIConfig(client_id="c", config_file=folder / "etc" / "t.toml")
    assert config.outbox_path == folder / "data" / "o.sqlite3"
    assert config.ca_bundle == folder / "ca.pem"
    assert config.api_key == "key-at-home"


def test_dotted_names_of_event_types_need_no_quotes(file: Callable[[str], Path]) -> None:
    """TOML makes nested tables of them, which mean the same."""
    file("[retention]\nmessage.logged = 30\nmessage.edited = 31\n")
    config = made()
    assert config.retention["message.logged"] == 30.0
    assert config.retention["message.edited"] == 31.0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("flush_interval", "soon", "flush_interval (SDK_FLUSH_INTERVAL) is 'soon'; give a number"),
        (
            "batch_max_events",
            "1.5",
            "batch_max_events (SDK_BATCH_MAX_EVENTS) is '1.5'; give an int",
        ),
        (
            "batch_max_bytes",
            "7",
            "batch_max_bytes (SDK_BATCH_MAX_BYTES) is 7; give an int from 1,0",
        ),
        ("capture_content", "maybe", "capture_content (SDK_CAPTURE_CONTENT) is 'maybe'; give 1 or"),
        ("on_error", "panic", "on_error (SDK_ON_ERROR) is 'panic'; give one of 'degrade', 'raise'"),
        ("retention", "a.b=x", "retention (SDK_RETENTION)['a.b'] is 'x'; give a number from 0 to"),
        ("retention", "a.b", "retention (SDK_RETENTION) is 'a.b'; give 'eu_ai_act' or days by ev"),
        ("proxies", "http://p", "proxies (SDK_PROXIES) must map schemes to proxy URLs"),
        ("proxies", "a=1,a=2", "proxies (SDK_PROXIES) must map schemes to proxy URLs"),
        ("tags", "oslo", "tags (SDK_TAGS) is 'oslo'; give a dict, as in {'site': 'oslo'}, or in"),
        ("context", "a=1,a=2", "context (SDK_CONTEXT) is 'a=1,a=2'; give a dict"),
        ("secret_names", "a,-", "secret_names (SDK_SECRET_NAMES) must be a list of names"),
        ("api_key", "a b", "api_key (SDK_API_KEY) has white space"),
        ("chain_key", "short", "chain_key (SDK_CHAIN_KEY) has 5 bytes"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    """Who set it can find it by the message."""
    monkeypatch.setenv(f"SDK_{name.upper()}", text)
    with pytest.raises(ConfigurationError) as caught:
        made(name)
    assert str(caught.value).startswith(said)


def test_no_message_shows_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URL may have a password."""
    monkeypatch.setenv("SDK_PROXIES", "http://me:s3cr3t@proxy")
    with pytest.raises(ConfigurationError) as caught:
        made()
    assert "s3cr3t" not in str(caught.value)
    monkeypatch.setenv("SDK_PROXIES", "https=http://me:s3cr3t@proxy")
    assert "s3cr3t" not in repr(made())


def test_a_copy_asks_neither_environment_nor_file_again(
    monkeypatch: pytest.MonkeyPatch, file: Callable[[str], Path]
) -> None:
    """What has changed or gone meanwhile changes nothing in it."""
    path = file("flush_interval = 3\n")
    config = made()
    path.unlink()
    monkeypatch.setenv("SDK_PROXIES", "https=http://proxy:1")
    copy = dataclasses.replace(config, read_timeout=2)
    assert (copy.flush_interval, copy.read_timeout, copy.proxies) == (3.0, 2.0, None)
    assert dataclasses.replace(copy, read_timeout=config.read_timeout) == config
