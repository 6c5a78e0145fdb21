"""What an outbox recorded, held against what a text asks to be recorded."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tracker._version import __version__
from tracker.audit.frameworks import FRAMEWORKS
from tracker.audit.records import KINDS, AppliedRetention, Records, Use
from tracker.outbox import identity, ledger, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from tracker.audit.tally import Record
    from tracker.outbox import Account, IntegrityReport


@dataclass(frozen=True)
class ReportLine:
    """A kind of events that speaks to something that a text asks.

    Attributes:
        provision: The article, control or criterion.
        asks: What it asks, in our words.
        kind: Which events, in one word.
        events: Which events, for people.
        record: Those that are stored.
    """

    provision: str
    asks: str
    kind: str
    events: str
    record: Record

    @property
    def recorded(self) -> bool:
        """Whether there is any."""
        return self.record.count > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the line as an object for JSON, with the fields of its record."""
        fields = asdict(self)
        record = fields.pop("record")
        return {**fields, "recorded": self.recorded, **record}


@dataclass(frozen=True)
class Report:
    """What the stored events of a period say to a text.

    Attributes:
        framework: ``"eu-ai-act"``, ``"iso-42001"`` or ``"soc2"``.
        title: The text's name.
        note: What a reader has to know about the lines.
        sdk_version: The version that made the report.
        made_at_ms: When it was made, Unix milliseconds.
        outbox_id: The outbox.
        client_id: The client whose events it contains.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
        first_at_ms: Time of the first event of the period, or None.
        last_at_ms: Time of the last event of the period, or None.
        lines: What the text asks, and what is recorded of it.
        uses: The newest uses that began in the period, newest first, at most 100.
        retention: How long delivered events stay, or None if no stored event says so.
        account: Where every event of the outbox is, of any time.
        integrity: Whether the whole outbox is as it was written.
    """

    framework: str
    title: str
    note: str
    sdk_version: str
    made_at_ms: int
    outbox_id: str
    client_id: str
    since_ms: int | None
    until_ms: int | None
    first_at_ms: int | None
    last_at_ms: int | None
    lines: tuple[ReportLine, ...]
    uses: tuple[Use, ...]
    retention: AppliedRetention | None
    account: Account
    integrity: IntegrityReport

    def as_dict(self) -> dict[str, Any]:
        """Return everything as an object for JSON."""
        found = self.integrity
        return {
            **asdict(self),
            "lines": [line.as_dict() for line in self.lines],
            "integrity": {"ok": found.ok, "proven": found.proven, **asdict(found)},
        }


def make(
    connection: Connection,
    framework: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    keys: Sequence[bytes] = (),
) -> Report:
    """Return the report of a period, read in one snapshot.

    Args:
        connection: To the outbox.
        framework: One of `FRAMEWORKS`.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
        keys: The known chain keys, as for `verify`.
    """
    chosen = FRAMEWORKS[framework]
    connection.exec_driver_sql("BEGIN")
    records = Records(connection, since_ms, until_ms, time.time_ns() // 1_000_000)
    found = records.read()
    owner = identity.read(connection)
    report = Report(
        framework=framework,
        title=chosen.title,
        note=chosen.note,
        sdk_version=__version__,
        made_at_ms=records.now_ms,
        outbox_id=owner.outbox_id,
        client_id=owner.client_id,
        since_ms=since_ms,
        until_ms=until_ms,
        first_at_ms=records.first_at_ms,
        last_at_ms=records.last_at_ms,
        lines=tuple(
            ReportLine(line.provision, line.asks, kind, KINDS[kind], found[kind])
            for line in chosen.lines
            for kind in line.kinds
        ),
        uses=records.uses(),
        retention=records.retention(),
        account=ledger.read(connection),
        integrity=verify.check(connection, keys),
    )
    connection.exec_driver_sql("ROLLBACK")  # after an error, the caller closes the connection
    return report
