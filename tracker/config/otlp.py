"""The settings of the protocol ``"otlp"``, and OpenTelemetry's variables that stand in for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tracker.config.kinds import Kind, flattened, read_mapping
from tracker.config.sources import opentelemetrys
from tracker.delivery.headers import check_headers
from tracker.errors import ConfigurationError

PREFIX = "otlp+"
"""What the address of an OTLP receiver begins with where its protocol is not said otherwise."""
DEFAULT_URL = "http://127.0.0.1:4318"
"""The address that the specification gives a receiver on this machine."""
ENDPOINT, HEADERS, RESOURCE = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
)
SERVICE_NAME = "OTEL_SERVICE_NAME"
_TRACES = "/v1/traces"


def headers() -> Kind:
    """Return the kind of a mapping of HTTP headers."""
    return Kind(_check_headers, _read_pairs)


def resource() -> Kind:
    """Return the kind of a mapping of attributes, texts by name."""
    return Kind(_check_resource, _read_pairs, flattened)


def _read_pairs(text: str) -> object:
    """Return what ``k=v,k=v`` stands for, where any character may be percent-encoded."""
    found = read_mapping(text)
    if not isinstance(found, dict):
        return text
    return {unquote(name): unquote(value) for name, value in found.items()}


def _check_headers(name: str, value: object) -> dict[str, str]:
    """Return headers; no message shows a value, since it may be a key."""
    pairs = _texts(name, value, "{'x-project-name': 'kiosk-17'}", "x-project-name=kiosk-17")
    return check_headers(name, pairs)


def _check_resource(name: str, value: object) -> dict[str, str]:
    return _texts(name, value, "{'service.name': 'kiosk'}", "service.name=kiosk")


def _texts(name: str, value: object, example: str, in_environment: str) -> dict[str, str]:
    if value is None:
        return {}
    fits = isinstance(value, Mapping) and all(
        isinstance(part, str) and part.strip() for pair in value.items() for part in pair
    )
    if not fits:
        raise ConfigurationError(
            f"{name} must map texts to texts, as in {example}, or in the environment "
            f"{in_environment}"
        )
    return dict(value)  # type: ignore[call-overload, no-any-return]  # `fits` has shown that it is a mapping


def of_opentelemetry(setting: str) -> tuple[Any, str] | None:
    """Return what OpenTelemetry's variables say about a setting, and which one; None if nothing."""
    variable = {"base_url": ENDPOINT, "otlp_headers": HEADERS, "otlp_resource": RESOURCE}[setting]
    text = opentelemetrys(variable)
    found: Any = text if setting == "base_url" else _read_pairs(text)
    if setting == "otlp_resource" and (service := opentelemetrys(SERVICE_NAME)):
        kept = found if isinstance(found, dict) else {}
        return {**kept, "service.name": service}, variable if text else SERVICE_NAME
    return (found, variable) if text else None


def protocol_of(destination_url: str) -> str:
    """Return the protocol of what an outbox is bound to; see `APIConfig.destination_url`."""
    return "otlp" if destination_url.startswith(PREFIX) else "tracker"


def without_path(base_url: str) -> str:
    """Return a base URL without the path of traces, which is appended when something is sent."""
    return base_url.removesuffix(_TRACES)
