"""The settings of the protocol ``otlp``, and OpenTelemetry's variables that stand in for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracker import APIConfig, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _outbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SDK_OUTBOX_PATH", str(tmp_path / "outbox.sqlite3"))
    monkeypatch.setenv("SDK_CLIENT_ID", "kiosk-17")


def made(**given: Any) -> APIConfig:
    return APIConfig(protocol="otlp", **given)


def test_no_key_is_required() -> None:
    """Many receivers on loopback have none; a collector always has."""
    assert made().api_key == ""
    with pytest.raises(ConfigurationError, match="no API key"):
        APIConfig()


def test_opentelemetrys_variables_count_where_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its address, headers and resource, percent-encoded as the specification has them."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:6006/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20cGs6c2s%3D,x-a=b")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=ignored")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "kiosk")
    config = made()
    assert config.base_url == "http://127.0.0.1:6006"
    assert config.otlp_headers == {"authorization": "Basic cGs6c2s=", "x-a": "b"}
    assert config.otlp_resource == {"team": "a", "service.name": "kiosk"}
    assert config.origins["base_url"] == ("environment", "OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("SDK_BASE_URL", "http://127.0.0.1:5000")
    assert made(otlp_headers={}).base_url == "http://127.0.0.1:5000"
    assert made(otlp_headers={}).otlp_headers == {}
    assert APIConfig(api_key="k", base_url="http://localhost").otlp_headers == {}


def test_the_default_is_the_receiver_of_this_machine() -> None:
    """At the port of the specification."""
    assert made().base_url == "http://127.0.0.1:4318"


@pytest.mark.parametrize("url", ["http://127.0.0.1:6006/v1/traces", "http://127.0.0.1:6006/"])
def test_the_path_of_traces_may_be_given_too(url: str) -> None:
    """It is the same receiver, and the same outbox."""
    assert made(base_url=url).base_url == "http://127.0.0.1:6006"


def test_a_base_url_can_say_the_protocol() -> None:
    """As it stands in an outbox; two protocols at one address are two outboxes."""
    config = APIConfig(base_url="otlp+http://127.0.0.1:6006")
    assert (config.protocol, config.base_url) == ("otlp", "http://127.0.0.1:6006")
    assert config.destination_url == "otlp+http://127.0.0.1:6006"
    with pytest.raises(ConfigurationError, match="give one of them"):
        APIConfig(api_key="k", protocol="tracker", base_url="otlp+http://127.0.0.1:6006")


def test_plain_http_to_another_host_is_refused() -> None:
    """As for a collector: what is sent would be readable on the way."""
    with pytest.raises(ConfigurationError, match="plain http"):
        made(base_url="http://receiver.example.com")


@pytest.mark.parametrize(
    "headers",
    [
        {"x key": "v"},
        {"x-key": "wörd"},
        {"x-key": "line\nline"},
        {"Content-Type": "application/json"},
        {"x-key": 1},
        {"": "v"},
        ["x-key"],
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: Any) -> None:
    """The message says what is allowed, and never shows a value."""
    with pytest.raises(ConfigurationError, match="otlp_headers") as refusal:
        made(otlp_headers=headers)
    assert "wörd" not in str(refusal.value)


def test_types_to_skip_that_are_none_are_refused_with_an_example_of_types() -> None:
    """And not with one of names of secrets, which are a list of names too."""
    with pytest.raises(ConfigurationError, match=r"otlp_skip .*otel\.span_started,integrity\.\*"):
        made(otlp_skip="message.logged")


def test_no_repr_shows_a_header() -> None:
    """Most have a key in them."""
    assert "s3cret" not in repr(made(otlp_headers={"authorization": "Bearer s3cret"}))
