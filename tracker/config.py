"""`APIConfig`: all settings, checked once. Only this module reads environment variables."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from tracker import identity
from tracker.errors import ConfigurationError, ValidationError
from tracker.folders import default_folder
from tracker.validation import check_id

DEFAULT_BASE_URL = "http://127.0.0.1:8080"
PROTOCOL_BATCH_EVENTS = 500
PROTOCOL_BATCH_BYTES = 4 * 1024 * 1024
_ENVELOPE_ROOM = 4096
"""Bytes of a request body reserved for everything but the events."""
_LONG_RETENTION = {"compliance.*": 3_650.0}
_PRESETS = {"eu_ai_act": 190.0}
"""Least days for every type by the names of presets. The longest six months have 184 days."""
_MOST_DAYS = 36_500.0
_TYPE_OR_PREFIX = re.compile(r"[\w-]+(\.[\w-]+)*(\.\*)?")

_LONGEST_NAME = 255 - 40
"""Longest file name of an outbox in bytes: file systems allow 255, and files beside it add 40."""
_LONGEST_PATH = 512 - 40
"""Longest path of an outbox in bytes: SQLite allows 512 (``MAX_PATHNAME`` in its os_unix.c)."""

_CHAIN_KEY_BYTES = 16
"""Shortest chain key: a shorter one could be guessed, and HMAC is only as secure as its key."""

_FALSE = ("", "0", "false", "no", "off")
_TRUE = ("1", "true", "yes", "on")
_Read = TypeVar("_Read")
_UNSET: Any = None
"""Default of the fields that are read from an environment variable when they are not given."""


class _AnyPath(Protocol[_Read]):
    """For type checkers: a field that accepts any kind of path and is read as a `Path`."""

    def __get__(self, instance: object, owner: type) -> _Read:
        """Return the converted value."""

    def __set__(self, instance: object, value: str | os.PathLike[str] | _Read) -> None:
        """Accept any path."""


class _Retention(Protocol):
    """For type checkers: a field that also accepts the name of a preset, and is read as days."""

    def __get__(self, instance: object, owner: type) -> Mapping[str, float]:
        """Return the days by type."""

    def __set__(self, instance: object, value: Mapping[str, float] | Literal["eu_ai_act"]) -> None:
        """Accept days, or the name of a preset."""


@dataclass(frozen=True, kw_only=True)
class APIConfig:
    """Settings of a tracker. Arguments take precedence over the environment, then come defaults.

    Instances are frozen; `dataclasses.replace` makes a changed copy. Neither `repr` nor any error
    shows the API key or the chain key.

    Raises:
        ConfigurationError: if a value is missing or invalid; the message says what is allowed.

    Attributes:
        api_key: The key that authenticates this client to the collector. ``SDK_API_KEY``.
            Required unless `disabled`.
        client_id: Name of this device or installation, 1 to 256 printable ASCII characters.
            ``SDK_CLIENT_ID``. Default: a UUID made once and kept beside the outbox.
        base_url: URL of the collector, with an optional path prefix; a trailing slash is ignored.
            ``SDK_BASE_URL``. Default ``http://127.0.0.1:8080``.
        outbox_path: The SQLite file. ``SDK_OUTBOX_PATH``. Default: one file per base URL and
            client id in the user's data folder.
        disabled: If True, calls validate their arguments and do nothing else.
            ``SDK_DISABLED=1``. Default False.
        durability: ``"full"`` (default): the event of a call that has returned survives power
            loss. ``"process"``: it survives only the death of the process, but calls are several
            times faster.
        on_error: What a logging call does when the outbox cannot be written. ``"degrade"``
            (default): the event is kept in a bounded memory buffer until it can be written.
            ``"raise"``: the call raises `OutboxError`.
        allow_insecure_http: Allow plain ``http://`` to a host other than loopback; the API key is
            then sent unencrypted. ``SDK_ALLOW_INSECURE_HTTP=1``. Default False.
        max_event_bytes: Maximum size of one encoded event, 1,024 to 4,190,208 bytes.
            Default 1 MiB.
        batch_max_events: Maximum number of events in a batch, 1 to 500. Default 500.
        batch_max_bytes: Maximum size of a batch before compression, at least `max_event_bytes`
            plus 4 KiB, at most 4 MiB. Default 4 MiB.
        flush_interval: Seconds to wait for more events before sending a batch, 0 to 3,600.
            Default 0.5.
        connect_timeout: Seconds to wait for a connection. Default 5.
        read_timeout: Seconds to wait for the next bytes of an answer. Default 30.
        total_timeout: Maximum duration of one request in seconds. Default 60.
        backoff_base: Maximum length of the first pause after a failure, in seconds. Default 1.
        backoff_cap: Maximum length of any pause in seconds, except one that the server asks for
            with ``Retry-After``. Default 300.
        requests_per_minute: Maximum number of requests in any 60 seconds, 1 to 5,000.
            Default 5,000.
        retention_days: Days that delivered events stay in the outbox; 0 removes them the next
            time it is pruned. Default 7.
        retention: Days that delivered events of certain types stay instead, by type:
            ``{"message.logged": 30}``, or by a prefix that ends in ``.*``:
            ``{"security.*": 365}``; the most specific one applies. Erasure events stay as long as
            any event that they name. Default ``{"compliance.*": 3650}``, which is added unless
            ``"compliance.*"`` is given. In place of all that, ``"eu_ai_act"``
            (``SDK_RETENTION=eu_ai_act``) raises `retention_days` to 190, which is more than six
            months, if it is less.
        max_outbox_bytes: Maximum size of the outbox in bytes, at least 1 MiB; None (default) for
            no limit. Delivered events are removed early before `outbox_full` applies.
        outbox_full: ``"refuse"`` (default): a new event over the limit is handled as `on_error`
            says. ``"discard_oldest"``: the oldest pending events are removed, counted as
            discarded, and named to the server by an event.
        memory_buffer_events: Maximum number of events kept in memory while storage fails, 0 to
            1,000,000. Default 10,000.
        memory_buffer_bytes: Approximate maximum size of these events in bytes, 0 to 16 GiB.
            Default 64 MiB.
        exit_timeout: Seconds of uploading at interpreter exit, 0 to 60. Default 2.
        ca_bundle: PEM file of CA certificates to trust in addition to the usual ones or those
            named by ``REQUESTS_CA_BUNDLE``. ``SDK_CA_BUNDLE``. A relative path is resolved when
            the config is made.
        proxies: Proxies by scheme, as for requests. Default: those of the environment
            (``HTTPS_PROXY`` …), which are never used for a loopback `base_url`.
        redaction: What is masked in an event's data before it is stored: ``"secrets"`` (default)
            masks keys, tokens, private keys, passwords in connection strings, and the values of
            names such as ``password`` or ``api_key``; ``"pii"`` also masks e-mail addresses,
            phone numbers, payment cards, IBANs, US social security numbers and IP addresses, and
            needs the extra ``agent-tracking-sdk[pii]``; ``"off"`` masks nothing. Session, agent
            and user ids are never masked.
        secret_names: Additional names whose values are secret, such as ``["pin", "door_code"]``;
            see `tracker.redaction.names` for the default ones. The value of a name that ends in
            one of them is masked as ``[secret:pin]``. Default: none.
        not_secret_names: Names to remove from the default ones, such as ``["auth"]``.
            Default: none.
        redactors: Functions of your own. Each is called with every string of an event's data,
            keys included, after the built-in masks, and returns the text to store. A mask of the
            form ``[pii:kind:short]`` (or ``medium``, ``long``) is counted by its kind, any other
            change as ``custom``. If a function fails, ``[redaction failed]`` is stored.
            `tracker.redaction.presidio` has an example.
        capture_content: If False, messages, tool arguments and results, errors, comments and the
            values of metadata are replaced by their sizes. Default True.
        report_redactions: Log a ``security.reported`` event for each event in which something was
            masked. Default False.
        chain_key: Secret of at least 16 bytes, given as bytes or as text (encoded as UTF-8,
            without white space at the ends). ``SDK_CHAIN_KEY``. The hash chain is then an
            HMAC-SHA256 with this key, so that nobody without it can recompute the chain after a
            change. The key is stored nowhere: keep it, and pass it to every process that logs to
            the outbox. Default: none.
        signing_key: Ed25519 private key, PKCS#8 in PEM, as text, that signs the outbox's
            checkpoints. ``SDK_SIGNING_KEY``. Needs the extra ``[evidence]``. Default: the key in
            the file ``<outbox>.signing-key``, which is made on first use, if the extra is
            installed.
    """

    api_key: str = field(default=_UNSET, repr=False, metadata={"variable": "SDK_API_KEY"})
    client_id: str = field(default=_UNSET, metadata={"variable": "SDK_CLIENT_ID"})
    base_url: str = field(default=_UNSET, metadata={"variable": "SDK_BASE_URL"})
    outbox_path: _AnyPath[Path] = field(default=_UNSET, metadata={"variable": "SDK_OUTBOX_PATH"})
    disabled: bool = field(default=_UNSET, metadata={"variable": "SDK_DISABLED"})
    durability: Literal["full", "process"] = "full"
    on_error: Literal["degrade", "raise"] = "degrade"
    allow_insecure_http: bool = field(
        default=_UNSET, metadata={"variable": "SDK_ALLOW_INSECURE_HTTP"}
    )
    max_event_bytes: int = 1024 * 1024
    batch_max_events: int = PROTOCOL_BATCH_EVENTS
    batch_max_bytes: int = PROTOCOL_BATCH_BYTES
    flush_interval: float = 0.5
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    total_timeout: float = 60.0
    backoff_base: float = 1.0
    backoff_cap: float = 300.0
    requests_per_minute: int = 5_000
    retention_days: float = 7.0
    retention: _Retention = field(
        default=_UNSET, hash=False, metadata={"variable": "SDK_RETENTION"}
    )
    max_outbox_bytes: int | None = None
    outbox_full: Literal["refuse", "discard_oldest"] = "refuse"
    memory_buffer_events: int = 10_000
    memory_buffer_bytes: int = 64 * 1024 * 1024
    exit_timeout: float = 2.0
    ca_bundle: _AnyPath[Path | None] = field(default=_UNSET, metadata={"variable": "SDK_CA_BUNDLE"})
    # No repr: the URL of a proxy may contain a password.
    proxies: Mapping[str, str] | None = field(default=None, hash=False, repr=False)
    redaction: Literal["secrets", "pii", "off"] = "secrets"
    secret_names: Sequence[str] = ()
    not_secret_names: Sequence[str] = ()
    redactors: Sequence[Callable[[str], str]] = field(default=(), hash=False)
    capture_content: bool = True
    report_redactions: bool = False
    chain_key: str | bytes | None = field(
        default=_UNSET, repr=False, metadata={"variable": "SDK_CHAIN_KEY"}
    )
    signing_key: str | None = field(
        default=_UNSET, repr=False, metadata={"variable": "SDK_SIGNING_KEY"}
    )

    def __post_init__(self) -> None:
        """Fill in missing values, then check all of them."""
        for item in dataclasses.fields(self):
            variable = item.metadata.get("variable")
            if variable and getattr(self, item.name) is None:
                self._set(item.name, os.environ.get(variable) or None)
        self._set("disabled", _flag("disabled (SDK_DISABLED)", self.disabled))
        self._set(
            "allow_insecure_http",
            _flag("allow_insecure_http (SDK_ALLOW_INSECURE_HTTP)", self.allow_insecure_http),
        )
        self._check_choices()
        self._check_numbers()
        self._settle_retention()
        self._set("api_key", _check_api_key(self.api_key, self.disabled))
        url = DEFAULT_BASE_URL if self.base_url is _UNSET else self.base_url
        self._set("base_url", _check_base_url(url, self.allow_insecure_http))
        self._set("ca_bundle", _check_ca_bundle(self.ca_bundle))
        self._set("proxies", _check_proxies(self.proxies))
        for name in ("secret_names", "not_secret_names"):
            self._set(name, _check_names(name, getattr(self, name)))
        self._set("redactors", _check_redactors(self.redactors))
        self._set("chain_key", check_chain_key("chain_key (SDK_CHAIN_KEY)", self.chain_key))
        _check_signing_key(self.signing_key)
        self._locate()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_choices(self) -> None:
        _choice("durability", self.durability, ("full", "process"))
        _choice("on_error", self.on_error, ("degrade", "raise"))
        _choice("outbox_full", self.outbox_full, ("refuse", "discard_oldest"))
        _choice("redaction", self.redaction, ("secrets", "pii", "off"))
        _choice("capture_content", self.capture_content, (True, False))
        _choice("report_redactions", self.report_redactions, (True, False))
        if self.redaction == "pii":
            _check_pii_extra()

    def _check_numbers(self) -> None:
        _integer("max_event_bytes", self.max_event_bytes, 1024, PROTOCOL_BATCH_BYTES - 4096)
        _integer("batch_max_events", self.batch_max_events, 1, PROTOCOL_BATCH_EVENTS)
        _integer(
            "batch_max_bytes",
            self.batch_max_bytes,
            self.max_event_bytes + _ENVELOPE_ROOM,
            PROTOCOL_BATCH_BYTES,
        )
        _integer("requests_per_minute", self.requests_per_minute, 1, 5_000)
        _integer("memory_buffer_events", self.memory_buffer_events, 0, 1_000_000)
        _integer("memory_buffer_bytes", self.memory_buffer_bytes, 0, 16 * 1024**3)
        if self.max_outbox_bytes is not None:
            _integer("max_outbox_bytes", self.max_outbox_bytes, 1024 * 1024, 2**63 - 1)
        for name, low, high in (
            ("flush_interval", 0.0, 3_600.0),
            ("connect_timeout", 0.001, 3_600.0),
            ("read_timeout", 0.001, 3_600.0),
            ("total_timeout", 0.001, 86_400.0),
            ("backoff_base", 0.001, 3_600.0),
            ("backoff_cap", 0.001, 86_400.0),
            ("retention_days", 0.0, _MOST_DAYS),
            ("exit_timeout", 0.0, 60.0),
        ):
            self._set(name, _seconds(name, getattr(self, name), low, high))

    def _settle_retention(self) -> None:
        """Put the days that a preset stands for in place of its name."""
        given: object = self.retention
        days: dict[str, float] = {}
        if isinstance(given, str):
            if given not in _PRESETS:
                raise ConfigurationError(
                    f"retention (SDK_RETENTION) is {given!r}; give 'eu_ai_act' or, in Python, days "
                    "by event type, as in {'message.logged': 30}"
                )
            self._set("retention_days", max(self.retention_days, _PRESETS[given]))
        elif given is not None:
            days = _check_retention(given)
        self._set("retention", {**_LONG_RETENTION, **days})

    def _locate(self) -> None:
        """Determine the outbox's path and the client id, which may be stored beside it."""
        given = _check_path(self.outbox_path)
        folder = given.parent if given else default_folder()
        if self.client_id is _UNSET:
            made = "disabled" if self.disabled else identity.load_or_create(folder)
            self._set("client_id", made)
        _check_client_id(self.client_id)
        path = given or folder / _file_name(self.base_url, self.client_id)
        # realpath of the folder only: a link in place of the file itself is refused on opening.
        path = Path(os.path.realpath(path.parent)) / path.name
        _check_length(path)
        self._set("outbox_path", path)


def _file_name(base_url: str, client_id: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", client_id)[:40].strip(".-") or "outbox"
    unique = hashlib.sha256(f"{base_url}\0{client_id}".encode()).hexdigest()[:12]
    return f"{readable}-{unique}.sqlite3"


def _flag(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigurationError(f"{name} is {value!r}; give 1 or 0 (true/false)")
    return text in _TRUE


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}"
        )


def _check_pii_extra() -> None:
    for module in ("phonenumbers", "stdnum"):
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(
                f"redaction='pii' needs the package {module}, which is not installed: "
                "pip install 'agent-tracking-sdk[pii]'"
            )


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigurationError(f"{name} is {value!r}; give an int from {low:,} to {high:,}")


def _seconds(name: str, value: object, low: float, high: float) -> float:
    fits = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
    if not fits:
        raise ConfigurationError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]  # `fits` has just shown that it is a number


def _check_api_key(value: object, disabled: bool) -> str:
    # No message here may contain the key or any part of it.
    if value is None and disabled:
        return ""
    if value is None or value == "":
        raise ConfigurationError(
            "no API key: set the environment variable SDK_API_KEY or pass "
            "APIConfig(api_key=...); `tracker-collector keys create` makes one"
        )
    if not isinstance(value, str):
        raise ConfigurationError(f"api_key is of type {type(value).__name__}; give a str")
    key = value.strip()  # secrets read from files often end in a newline
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "api_key (SDK_API_KEY) has white space, control or non-ASCII characters; "
            "an HTTP header cannot carry them. Copy the key again"
        )
    return key


def check_chain_key(name: str, value: object) -> bytes | None:
    """Return a chain key as bytes; None if there is none.

    Raises:
        ConfigurationError: if it is neither text nor bytes, or too short. The message never
            contains the key.
    """
    if value is None:
        return None
    if not isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str or bytes")
    try:
        key = value.strip().encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} has characters that UTF-8 cannot encode") from None
    if len(key) < _CHAIN_KEY_BYTES:
        raise ConfigurationError(
            f"{name} has {len(key)} bytes; give {_CHAIN_KEY_BYTES} or more that nobody can guess, "
            "as `python3 -c 'import secrets; print(secrets.token_hex(32))'` prints them"
        )
    return key


def _check_signing_key(value: object) -> None:
    """Check the form of a signing key; the message never contains it."""
    if value is None:
        return
    if not isinstance(value, str) or "-----BEGIN PRIVATE KEY-----" not in value:
        raise ConfigurationError(
            "signing_key (SDK_SIGNING_KEY) is not a private key in PEM (PKCS#8, Ed25519); "
            "`openssl genpkey -algorithm ed25519` prints one"
        )


def _check_client_id(value: object) -> None:
    try:
        text = check_id("client_id (SDK_CLIENT_ID)", value)
    except ValidationError as error:
        raise ConfigurationError(str(error)) from None
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigurationError(
            f"client_id (SDK_CLIENT_ID) is {text!r}; give printable ASCII characters without "
            "white space at the ends: it travels in an HTTP header"
        )


def _check_base_url(value: object, allow_insecure_http: bool) -> str:
    name = "base_url (SDK_BASE_URL)"
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str")
    # Checked before the URL is parsed: the error for a malformed one may show any part of it.
    if "@" in value:  # user:secret@host
        raise ConfigurationError(
            f"{name} contains credentials (an @); give the key as api_key instead, and write an @ "
            "in a path as %40"
        )
    try:
        parts = urlsplit(value.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a URL: {error}") from None
    value, query, _ = re.sub("[?#]", "?", value).partition("?")  # a query may hold a key
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"{name} is {value!r} with the scheme {parts.scheme!r}; "
            "give https://host or http://localhost:port"
        )
    whole = value.isascii() and value.strip().isprintable() and " " not in value.strip()
    if not host or query or not whole:
        raise ConfigurationError(
            f"{name} is {value!r}; give scheme, host, optional port and path prefix in ASCII, "
            "without spaces, query or fragment"
        )
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure_http:
        raise ConfigurationError(
            f"{name} is {value!r}: plain http would send the API key unencrypted to another host. "
            "Use https://, or set allow_insecure_http=True (SDK_ALLOW_INSECURE_HTTP=1) if the "
            "network is trusted"
        )
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port is None else f":{port}"
    return f"{parts.scheme}://{shown_host}{shown_port}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Return True if `host` is this machine's loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_path(value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(
            f"outbox_path (SDK_OUTBOX_PATH) is of type {type(value).__name__}; give a path"
        )
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        raise ConfigurationError("outbox_path (SDK_OUTBOX_PATH) must be text without NUL")
    if text.startswith((":memory:", "file:")):
        raise ConfigurationError(
            f"outbox_path (SDK_OUTBOX_PATH) is {text!r}; give the path of a file on a disk"
        )
    if not Path(text).name:
        raise ConfigurationError(
            f"outbox_path (SDK_OUTBOX_PATH) is {text!r}, which names no file; give the path of one"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"outbox_path (SDK_OUTBOX_PATH) is {text!r}, and there is no such user: {error}"
        ) from None


def _check_length(path: Path) -> None:
    """Refuse a path that leaves no room for the names of the files beside the outbox."""
    name, whole = len(os.fsencode(path.name)), len(os.fsencode(path))
    if name > _LONGEST_NAME or whole > _LONGEST_PATH:
        raise ConfigurationError(
            f"outbox_path (SDK_OUTBOX_PATH) is too long: {whole} bytes, {name} of them the file's "
            f"name. Give at most {_LONGEST_PATH} bytes, {_LONGEST_NAME} of them for the name: "
            "files beside the outbox have longer names"
        )


def _check_ca_bundle(value: object) -> Path | None:
    if value is None:
        return None
    name = "ca_bundle (SDK_CA_BUNDLE)"
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str):
        path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - a Path raises
    # os.path returns False where a Path raises: for a NUL or a name that is too long.
    if not isinstance(path, str) or not os.path.isfile(path):  # noqa: PTH113
        raise ConfigurationError(f"{name} is {value!r}; give the path of a PEM file")
    import ssl  # seldom needed here, and slow to load

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigurationError(
            f"{name} {path!r} holds no readable PEM certificates: {error}"
        ) from error
    return Path(path)


def _check_proxies(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise ConfigurationError(
            "proxies must map schemes to proxy URLs, as in {'https': 'http://proxy:3128'}"
        )
    return dict(value)


def _check_retention(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"retention is of type {type(value).__name__}; give days by event type, as in "
            "{'message.logged': 30, 'compliance.*': 3650}, or 'eu_ai_act'"
        )
    for pattern in value:
        if not isinstance(pattern, str) or not _TYPE_OR_PREFIX.fullmatch(pattern):
            raise ConfigurationError(
                f"retention names {pattern!r}; give an event type, or a prefix that ends in '.*', "
                "as in 'compliance.*'. For all other types there is retention_days"
            )
    return {
        pattern: _seconds(f"retention[{pattern!r}]", days, 0.0, _MOST_DAYS)
        for pattern, days in value.items()
    }


def _check_names(name: str, value: object) -> tuple[str, ...]:
    fits = isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(each, str) and any(map(str.isalnum, each)) for each in value
    )
    if not fits:
        raise ConfigurationError(
            f"{name} must be a list of names with letters or digits, as in {name}=['door_code']"
        )
    return tuple(value)  # type: ignore[arg-type]  # `fits` has just shown that it is a list


def _check_redactors(value: object) -> tuple[Callable[[str], str], ...]:
    if not isinstance(value, Sequence) or not all(callable(item) for item in value):
        raise ConfigurationError(
            "redactors must be a list of functions from str to str, as in redactors=[hide_names]"
        )
    return tuple(value)
