"""The lines of an audit export, version 2: JSON Lines, from a head to a manifest.

=========  =====================================================================================
line       fields
=========  =====================================================================================
head       ``format``, ``version``, ``outbox_id``, ``chain_before`` (the chain value before the
           first event, null if it is unknown), ``chain_key_check`` (identifies the chain key that
           the outbox last used; 0 for none), ``keyed_from_start`` (whether it always had one)
event      all fields that the protocol sends
other      ``seq``, ``digest``, ``chain``: an event between the first and the last that is outside
           the period. Its content is left out, but the chain can be followed
damaged    the same, and ``damaged``: a damaged row as text
removed    ``removed`` (first and last seq), ``chain``: events that the tracker had pruned; and
           ``proof``, if a chain key was in use: that a process with the key removed them
manifest   ``manifest``: the fields of `Manifest`, ``seal`` among them
=========  =====================================================================================

The seal is the SHA-256 over all lines before the manifest and the manifest's other fields as
canonical JSON; with a chain key, the HMAC-SHA256 with it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tracker import canonical

if TYPE_CHECKING:
    from typing import Protocol

    class _Hash(Protocol):
        def update(self, data: bytes, /) -> None: ...
        def hexdigest(self) -> str: ...


FORMAT = "tracker.audit"
VERSION = 2
VERSIONS = (1, 2)
"""Those that can be checked; version 1 has no salts."""


@dataclass(frozen=True)
class Manifest:
    """The last line of an audit export, which summarizes it.

    Attributes:
        sdk_version: Version of the package that wrote it.
        exported_at_ms: Time of the export, Unix milliseconds.
        outbox_id: The outbox.
        client_id: The client of the outbox.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
        events: Number of events in the file.
        others: Number of events between them outside the period, with only digest and chain.
        removed: Number of events between them that the tracker had pruned or discarded.
        first_seq: seq of the first event, or None if there is none.
        last_seq: seq of the last event.
        first_chain: Chain value of the first event.
        last_chain: Chain value of the last event. Keep it elsewhere: it shows whether the file was
            rewritten as a whole.
        seal_key_check: Identifies the chain key of the seal; 0 for none.
    """

    sdk_version: str
    exported_at_ms: int
    outbox_id: str
    client_id: str
    since_ms: int | None
    until_ms: int | None
    events: int
    others: int
    removed: int
    first_seq: int | None
    last_seq: int | None
    first_chain: str | None
    last_chain: str | None
    seal_key_check: int


class Seal:
    """The digest of an export's lines, with a key if there is one."""

    def __init__(self, key: bytes | None) -> None:
        self.key_check = canonical.key_check(key)
        self._hash: _Hash = (
            hashlib.sha256() if key is None else hmac.new(key, digestmod=hashlib.sha256)
        )

    def add(self, line: bytes) -> None:
        """Add a line, including its end."""
        self._hash.update(line)

    def close(self, fields: dict[str, Any]) -> str:
        """Add the manifest's fields and return the seal."""
        self._hash.update(canonical.encode(fields).encode())
        return self._hash.hexdigest()


def encode(fields: dict[str, Any]) -> bytes:
    """Return a line."""
    return canonical.encode(fields).encode() + b"\n"


def encode_manifest(manifest: Manifest, seal: Seal) -> bytes:
    """Return the last line."""
    fields = asdict(manifest)
    return encode({"manifest": {**fields, "seal": seal.close(fields)}})
