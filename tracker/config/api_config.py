"""`APIConfig`: all settings, from their sources, checked once."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from tracker import context_items, identity
from tracker.config import addresses, contexts, days, keys, kinds, otlp, places, uploads
from tracker.config.kinds import Kind, setting
from tracker.config.sources import DEFAULT, ENVIRONMENT, FILE, Origin, Sourced, Sources
from tracker.errors import ConfigurationError
from tracker.folders import default_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROTOCOL_BATCH_EVENTS = 500
PROTOCOL_BATCH_BYTES = 4 * 1024 * 1024
_ENVELOPE_ROOM = 4096
"""Bytes of a request body reserved for everything but the events."""
_Read = TypeVar("_Read")


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
class APIConfig(Sourced):
    """Settings of a tracker: from arguments, else the environment, else a file, else the defaults.

    Each field has a variable of its name, such as ``SDK_RETENTION_DAYS``, and a line in the TOML
    file that `config_file` names; only functions, such as `redactors`, have neither. In the
    environment, 1 or 0 stands for a flag, ``a,b`` for a list and ``k=v,k=v`` for a mapping, and an
    empty text for nothing. Where None is the default, an argument of None counts as not given.

    Instances are frozen; `dataclasses.replace` makes a changed copy, for which neither environment
    nor file are read again. Neither `repr` nor any error shows a key.

    Raises:
        ConfigurationError: if a value is missing or invalid; the message says what is allowed.

    Attributes:
        api_key: The key that authenticates this client to the collector. Required, unless
            `disabled`, here or in `api_key_file`.
        api_key_file: File that holds the API key and nothing else. It is read again when it
            changes; while it is missing or empty, the last key is used. Of both, the one that
            comes from the higher source is used. A copy with another `api_key` needs
            ``api_key_file=None``.
        client_id: Name of this device or installation, 1 to 256 printable ASCII characters.
            Default: a UUID made once and kept beside the outbox.
        base_url: URL of the collector, with an optional path prefix; a trailing slash is ignored.
            Default ``http://127.0.0.1:8080``.
        protocol: ``"tracker"`` (default): `base_url` is a collector. ``"otlp"``: a receiver of
            OpenTelemetry's protocol over HTTP, such as Phoenix, MLflow, Langfuse or an
            OpenTelemetry Collector; needs the extra ``agent-tracking-sdk[otel]``. A `base_url` such
            as ``otlp+https://host`` says so too. Then `api_key` is optional, `base_url` defaults to
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``http://127.0.0.1:4318``, and ``/v1/traces`` is
            appended to it. What delivered means there depends on the receiver; see
            tracker/sync/otlp/README.md.
        otlp_headers: Headers of every request to an OTLP receiver, such as
            ``{"x-project-name": "kiosk-17"}``. The API key is sent as ``Authorization: Bearer``
            unless they have an ``Authorization``. Default: ``OTEL_EXPORTER_OTLP_HEADERS``.
        otlp_resource: Attributes of the resource of spans made of events. Default:
            ``OTEL_RESOURCE_ATTRIBUTES`` with ``OTEL_SERVICE_NAME``; ``service.name`` is the client
            id unless it is among them.
        otlp_logs: Send events that are no part of a conversation's course as log records, to
            ``/v1/logs``. Default False: as spans, which every receiver takes.
        otlp_skip: Types of events that are never sent to an OTLP receiver, or prefixes that end in
            ``.*``, such as ``integrity.*``. They are settled and counted as skipped.
            Default ``("otel.span_started",)``.
        outbox_path: The SQLite file. Default: one file per base URL and client id in the user's
            data folder.
        config_file: TOML file with further settings, each under the name of its field. Relative
            paths in it start at its folder. Default: none.
        environment: Where the application runs, such as ``"production"``, 1 to 256 characters. Like
            `release`, `tags` and `context`, it is in the context of every event, which stays when
            a user's data is erased. Default: none.
        release: The application's version, such as ``"1.4.2"``, 1 to 256 characters.
            Default: none.
        tags: Further text by name, each 1 to 256 characters, as in ``{"site": "oslo"}``; commands
            and reads can select by them. Default: none.
        context: Anything else that JSON can represent. Keys about a person, such as ``user`` or
            ``email``, are refused here and in tags. All four have at most 4,096 bytes together.
            Default: none.
        disabled: If True, calls validate their arguments and do nothing else. Default False.
        debug: Show the log, from level DEBUG on, on stderr, once per process, except for what the
            application's own logging writes there. Default False.
        durability: ``"full"`` (default): the event of a call that has returned survives power
            loss. ``"process"``: it survives only the death of the process, but calls are several
            times faster.
        on_error: What a logging call does when the outbox cannot be written. ``"degrade"``
            (default): the event is kept in a bounded memory buffer until it can be written.
            ``"raise"``: the call raises `OutboxError`.
        allow_insecure_http: Allow plain ``http://`` to a host other than loopback; the API key is
            then sent unencrypted. Default False.
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
            ``"compliance.*"`` is given. In place of all that, ``"eu_ai_act"`` raises
            `retention_days` to 190, which is more than six months, if it is less.
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
        upload_bytes_per_second: Mean number of bytes that uploads may send in a second, headers and
            compressed bodies, 1 to 1,000,000,000: after each request there is a pause in proportion
            to its size, and batches are smaller. Default: no limit. This and the next three are
            explained in tracker/README.md, "Metered links".
        upload_window: Times of day at which events may be uploaded, by the local clock:
            ``"22:00-06:00"``, or several such spans with commas between them. Default: always.
        upload_outside_window: ``"security.critical"``: security events of severity critical are
            uploaded outside the window too, with all pending events that were committed before
            them. ``"nothing"`` (default): no event is.
        may_upload: Function without arguments that is called in the sync thread before each
            request, and returns True if it may be made. False, an exception, or any other value
            keeps the events in the outbox, and it is asked again every 30 seconds. Default: none.
        ca_bundle: PEM file of CA certificates to trust in addition to the usual ones or those
            named by ``REQUESTS_CA_BUNDLE``. A relative path is resolved when the config is made.
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
        before_record: Function of your own that sees each event that a call logs, after masking, as
            a dict: ``type``, ``timestamp_ms``, ``agent_id``, ``session_id``, ``user_id``,
            ``data``, ``context``, ``trace``. It returns the dict, with any but type, time and trace
            changed, or None to drop the event, which is then counted as discarded. If it fails, the
            event is stored without its data.
        json_default: Function with the meaning of ``json.dumps(default=)``: called with each object
            in metadata, details, arguments and results that JSON does not have, it returns what to
            store instead. Without it, such objects are refused.
        capture_content: If False, messages, tool arguments and results, errors, comments and the
            values of metadata are replaced by their sizes. Default True.
        report_redactions: Log a ``security.reported`` event for each event in which something was
            masked. Default False.
        chain_key: Secret of at least 16 bytes, given as bytes or as text (encoded as UTF-8,
            without white space at the ends). The hash chain is then an HMAC-SHA256 with this key,
            so that nobody without it can recompute the chain after a change. The key is stored
            nowhere: keep it, and pass it to every process that logs to the outbox. Default: none.
        signing_key: Ed25519 private key, PKCS#8 in PEM, as text, that signs the outbox's
            checkpoints. Needs the extra ``[evidence]``. Default: the key in the file
            ``<outbox>.signing-key``, which is made on first use, if the extra is installed.
    """

    api_key: str = setting(None, Kind(keys.check_api_key), secret=True)
    api_key_file: _AnyPath[Path | None] = setting(None, places.path())
    client_id: str = setting(None, Kind(places.check_client_id))
    base_url: str = setting("http://127.0.0.1:8080", Kind(addresses.check_base_url), optional=True)
    protocol: Literal["tracker", "otlp"] = setting(
        "tracker", kinds.choice("tracker", "otlp"), optional=True
    )
    # Secret: most have a key in them.
    otlp_headers: Mapping[str, str] = setting(None, otlp.headers(), secret=True, hash=False)
    otlp_resource: Mapping[str, str] = setting(None, otlp.resource(), hash=False)
    otlp_logs: bool = setting(False, kinds.flag())
    otlp_skip: Sequence[str] = setting(
        ("otel.span_started",), kinds.names("otel.span_started", "integrity.*")
    )
    outbox_path: _AnyPath[Path] = setting(None, places.path(places.check_outbox_path))
    config_file: _AnyPath[Path | None] = setting(
        None, Kind(places.check_path, from_file=None), compare=False
    )
    environment: str | None = setting(None, contexts.word())
    release: str | None = setting(None, contexts.word())
    tags: Mapping[str, str] = setting(None, contexts.tags(), hash=False)
    context: Mapping[str, Any] = setting(None, contexts.items(), hash=False)
    disabled: bool = setting(False, kinds.flag(), optional=True)
    debug: bool = setting(False, kinds.flag())
    durability: Literal["full", "process"] = setting("full", kinds.choice("full", "process"))
    on_error: Literal["degrade", "raise"] = setting("degrade", kinds.choice("degrade", "raise"))
    allow_insecure_http: bool = setting(False, kinds.flag(), optional=True)
    max_event_bytes: int = setting(
        1024 * 1024, kinds.integer(1024, PROTOCOL_BATCH_BYTES - _ENVELOPE_ROOM)
    )
    batch_max_events: int = setting(PROTOCOL_BATCH_EVENTS, kinds.integer(1, PROTOCOL_BATCH_EVENTS))
    batch_max_bytes: int = setting(PROTOCOL_BATCH_BYTES, Kind(read=kinds.read_integer))
    flush_interval: float = setting(0.5, kinds.number(0.0, 3_600.0))
    connect_timeout: float = setting(5.0, kinds.number(0.001, 3_600.0))
    read_timeout: float = setting(30.0, kinds.number(0.001, 3_600.0))
    total_timeout: float = setting(60.0, kinds.number(0.001, 86_400.0))
    backoff_base: float = setting(1.0, kinds.number(0.001, 3_600.0))
    backoff_cap: float = setting(300.0, kinds.number(0.001, 86_400.0))
    requests_per_minute: int = setting(5_000, kinds.integer(1, 5_000))
    retention_days: float = setting(7.0, kinds.number(0.0, days.MOST))
    retention: _Retention = setting(
        None,
        Kind(days.check, days.read, kinds.flattened),
        hash=False,
    )
    max_outbox_bytes: int | None = setting(
        None, kinds.integer(1024 * 1024, 2**63 - 1, optional=True)
    )
    outbox_full: Literal["refuse", "discard_oldest"] = setting(
        "refuse", kinds.choice("refuse", "discard_oldest")
    )
    memory_buffer_events: int = setting(10_000, kinds.integer(0, 1_000_000))
    memory_buffer_bytes: int = setting(64 * 1024 * 1024, kinds.integer(0, 16 * 1024**3))
    exit_timeout: float = setting(2.0, kinds.number(0.0, 60.0))
    upload_bytes_per_second: int | None = setting(None, kinds.integer(1, 10**9, optional=True))
    upload_window: str | None = setting(None, Kind(uploads.check_window))
    upload_outside_window: Literal["nothing", "security.critical"] = setting(
        "nothing", kinds.choice("nothing", "security.critical")
    )
    may_upload: Callable[[], bool] | None = setting(
        None, Kind(uploads.check_function, None, None), hash=False
    )
    ca_bundle: _AnyPath[Path | None] = setting(None, places.path(places.check_ca_bundle))
    # Secret: the URL of a proxy may contain a password.
    proxies: Mapping[str, str] | None = setting(
        None, Kind(addresses.check_proxies, kinds.read_mapping), secret=True, hash=False
    )
    redaction: Literal["secrets", "pii", "off"] = setting(
        "secrets", kinds.choice("secrets", "pii", "off")
    )
    secret_names: Sequence[str] = setting((), kinds.names("door_code", "pin"))
    not_secret_names: Sequence[str] = setting((), kinds.names("auth", "session"))
    redactors: Sequence[Callable[[str], str]] = setting((), kinds.functions(), hash=False)
    before_record: Callable[[dict[str, Any]], dict[str, Any] | None] | None = setting(
        None, kinds.function(), hash=False
    )
    json_default: Callable[[Any], Any] | None = setting(None, kinds.function(), hash=False)
    capture_content: bool = setting(True, kinds.flag())
    report_redactions: bool = setting(False, kinds.flag())
    chain_key: str | bytes | None = setting(None, Kind(keys.check_chain_key), secret=True)
    signing_key: str | None = setting(None, Kind(keys.check_signing_key), secret=True)

    @property
    def event_context(self) -> dict[str, Any]:
        """What is in the context of every event: `environment`, `release`, `tags`, `context`."""
        given = {"environment": self.environment, "release": self.release, "tags": {**self.tags}}
        stated = {name: value for name, value in given.items() if value}
        return context_items.merged(self.context, stated)

    def __post_init__(self) -> None:
        """Take what is not given from the environment, a file or the defaults; check all of it."""
        items = [item for item in dataclasses.fields(self) if "kind" in item.metadata]
        copied = self._given.issuperset(item.name for item in items)  # as by `dataclasses.replace`
        sources = Sources(() if copied else items, self.config_file)  # a copy reads none
        for item in items:
            value, origin = self._argument(item, copied=copied) or sources.find(item)
            self._origins[item.name] = origin
            self._set(item.name, item.metadata["kind"].check(self._name(item.name), value))
        self._settle_protocol(copied=copied)
        self._check_together()
        self._settle_retention()
        self._settle_api_key(copied=copied)
        self._locate()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _settle_protocol(self, *, copied: bool) -> None:
        """Take the protocol from the base URL, and what it needs from OpenTelemetry's variables."""
        if self.base_url.startswith(otlp.PREFIX):
            if self.protocol == "tracker" and self._origins["protocol"].source != DEFAULT:
                raise ConfigurationError(
                    f"{self._name('protocol')} is 'tracker', and {self._name('base_url')} that of "
                    "an OTLP receiver; give one of them"
                )
            self._set("base_url", self.base_url.removeprefix(otlp.PREFIX))
            self._set("protocol", "otlp")
            self._origins["protocol"] = self._origins["base_url"]
        if self.protocol != "otlp":
            return
        for name in () if copied else ("base_url", "otlp_headers", "otlp_resource"):
            self._take_opentelemetrys(name)
        self._set("base_url", otlp.without_path(self.base_url))

    def _take_opentelemetrys(self, name: str) -> None:
        if self._origins[name].source != DEFAULT:
            return
        found = otlp.of_opentelemetry(name)
        if found is not None:
            value, variable = found
            self._origins[name] = Origin(ENVIRONMENT, variable)
            kind = type(self).__dataclass_fields__[name].metadata["kind"]
            self._set(name, kind.check(f"{name} ({variable})", value))
        elif name == "base_url":
            self._set(name, otlp.DEFAULT_URL)

    @property
    def destination_url(self) -> str:
        """`base_url`, after ``otlp+`` if that is the protocol: what the outbox is bound to."""
        return self.base_url if self.protocol == "tracker" else f"{otlp.PREFIX}{self.base_url}"

    def _check_together(self) -> None:
        """Check what depends on more than one setting, or on what is installed."""
        lowest = self.max_event_bytes + _ENVELOPE_ROOM
        kinds.integer(lowest, PROTOCOL_BATCH_BYTES).check(
            self._name("batch_max_bytes"), self.batch_max_bytes
        )
        if not self.allow_insecure_http:
            addresses.check_safe(self._name("base_url"), self.base_url)
        contexts.check_together(self.event_context)
        if self.redaction == "pii":
            _check_extra(self._name("redaction"), "pii", "phonenumbers", "stdnum")
        if self.protocol == "otlp":
            _check_extra(self._name("protocol"), "otel", "google.protobuf", "opentelemetry.proto")

    def _settle_retention(self) -> None:
        """Put the days that a preset stands for in place of its name."""
        given: Any = self.retention
        if isinstance(given, str):
            if self.retention_days < days.PRESETS[given]:
                self._set("retention_days", days.PRESETS[given])
                self._origins["retention_days"] = self._origins["retention"]
            given = None
        self._set("retention", {**days.USUAL, **(given or {})})

    def _settle_api_key(self, *, copied: bool) -> None:
        """Read the API key from its file, unless a key is given that takes precedence."""
        if self.api_key_file is not None and not copied:
            of_key = self._origins["api_key"] if self.api_key else Origin(DEFAULT)
            of_file = self._origins["api_key_file"]
            if of_key.rank == of_file.rank:
                raise ConfigurationError(
                    f"both {self._name('api_key')} and {self._name('api_key_file')} are given; "
                    "give one of them"
                )
            if of_key.rank < of_file.rank:
                self._set("api_key_file", None)
                self._origins["api_key_file"] = Origin(DEFAULT)
            elif not self.disabled:
                from tracker.config.key_file import KeyFile  # only where a file is named

                self._set("api_key", KeyFile(self.api_key_file).read())
                self._origins["api_key"] = Origin(FILE, str(self.api_key_file))
        if not self.api_key:
            if not self.disabled and self.protocol != "otlp":
                raise ConfigurationError(
                    "no API key: set the environment variable SDK_API_KEY, or SDK_API_KEY_FILE to "
                    "the path of a file that holds one, or pass APIConfig(api_key=...); "
                    "`tracker-collector keys create` makes one"
                )
            self._set("api_key", "")

    def _locate(self) -> None:
        """Determine the outbox's path and the client id, which may be stored beside it."""
        given: Path | None = self.outbox_path
        folder = given.parent if given else default_folder()
        if not self.client_id:
            made = "disabled" if self.disabled else identity.load_or_create(folder)
            self._set("client_id", places.check_client_id(self._name("client_id"), made))
        path = given or folder / places.file_name(self.destination_url, self.client_id)
        # realpath of the folder only: a link in place of the file itself is refused on opening.
        name = self._name("outbox_path")
        path = Path(places.absolute(name, str(path.parent), os.path.realpath)) / path.name
        places.check_length(name, path)
        self._set("outbox_path", path)


def _check_extra(setting: str, extra: str, *modules: str) -> None:
    """Check that the modules of an extra that a setting needs are installed.

    Raises:
        ConfigurationError: if one is not.
    """
    import importlib.util

    value = {"pii": "'pii'", "otel": "'otlp'"}[extra]
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # the package that it would be in
            found = None
        if found is None:
            raise ConfigurationError(
                f"{setting}={value} needs the package {module}, which is not installed: "
                f"pip install 'agent-tracking-sdk[{extra}]'"
            )
