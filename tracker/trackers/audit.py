"""What auditors get: an export that can be verified without the outbox, and a report."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Literal

from tracker import canonical, queries
from tracker.errors import ValidationError
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.audit.lines import Manifest
    from tracker.audit.report import Report

FRAMEWORKS = ("eu-ai-act", "iso-42001", "soc2")
"""The texts that a report can be about."""


class AuditExport(BaseTracker):
    """Exports events, and reports on them, for an auditor."""

    def export_audit(
        self,
        path: str | os.PathLike[str],
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> Manifest:
        """Write the events logged from `since` until just before `until` to a new file.

        The file is in JSON Lines format: a head, the events as sent to the collector, and a
        manifest with counts, the first and last chain value and a seal over the file.
        ``tracker-sync verify --export FILE`` checks it without the outbox. Events between the first
        and the last that are outside the period are included without their content, so that the
        chain can be followed.

        The file appears complete or not at all, readable by this user only (mode 0600). The seal
        uses `APIConfig.chain_key`, if there is one. Logging continues meanwhile.

        Args:
            path: The path of the new file, in an existing folder.
            since: Start of the period: an aware datetime, or Unix milliseconds. By default the
                first event stored; delivered events leave the outbox after
                `APIConfig.retention_days`.
            until: End of the period, which is not included. Default: now.

        Returns:
            The manifest. Keep its ``last_chain`` elsewhere: an export that was rewritten as a whole
            has a different one.

        Raises:
            ValidationError: if an argument is not allowed or the file cannot be written.
            OutboxError: if the outbox cannot be read.
            TrackerClosedError: after `close`.
        """
        from tracker.audit.export import export  # seldom used, and slow to load

        self._check_open()
        _check_path(path)
        since_ms, until_ms = _period(since, until)
        return self._client.read(
            partial(
                export,
                path=path,
                since_ms=since_ms,
                until_ms=until_ms,
                key=canonical.key_bytes(self.config.chain_key),
            )
        )

    def report(
        self,
        framework: Literal["eu-ai-act", "iso-42001", "soc2"],
        path: str | os.PathLike[str],
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> Report:
        """Write an HTML page on what the stored events say to a text, to a new file.

        For each thing that the text asks to be recorded, the page names the events that speak to
        it, and says "recorded" or "not recorded", how many there are, and their seqs. It does not
        say that the text is met. It has no scripts and loads nothing; everything that comes from
        events is escaped. It names persons, agents and conversations as the events do, so keep it
        as you keep those: an erasure does not reach it.

        The events are read in one snapshot, in memory that does not grow with their number, but, as
        in `verify_integrity`, by some 350 bytes for each range of removed ones; a million events
        take about half a minute. Logging continues meanwhile. The file appears complete or not at
        all, readable by this user only (mode 0600).

        Args:
            framework: The text: ``"eu-ai-act"`` for Article 12 of the EU AI Act, ``"iso-42001"``
                for control A.6.2.8 of ISO/IEC 42001, or ``"soc2"`` for criteria CC7.2 and CC7.3.
            path: The path of the new file, in an existing folder.
            since: Start of the period: an aware datetime, or Unix milliseconds. By default the
                first event stored; delivered events leave the outbox after
                `APIConfig.retention_days`.
            until: End of the period, which is not included. Default: now.

        Returns:
            What the page says, for programs.

        Raises:
            ValidationError: if an argument is not allowed or the file cannot be written.
            OutboxError: if the outbox cannot be read.
            TrackerClosedError: after `close`.
        """
        from tracker.audit.report_page import export  # seldom used, and slow to load

        self._check_open()
        if framework not in FRAMEWORKS:
            raise ValidationError(
                "framework", f"is {framework!r}; give one of {', '.join(map(repr, FRAMEWORKS))}"
            )
        _check_path(path)
        since_ms, until_ms = _period(since, until)
        key = canonical.key_bytes(self.config.chain_key)
        return self._client.read(
            partial(
                export,
                framework=framework,
                path=path,
                since_ms=since_ms,
                until_ms=until_ms,
                keys=() if key is None else (key,),
            )
        )


def _check_path(path: object) -> None:
    if not isinstance(path, (str, os.PathLike)) or os.fspath(path) == "" or "\0" in str(path):
        raise ValidationError("path", f"is {path!r}; give the path of a new file")


def _period(
    since: datetime | int | None, until: datetime | int | None
) -> tuple[int | None, int | None]:
    """Return the ends of a period, Unix milliseconds."""
    milliseconds = queries.filters.milliseconds
    since_ms, until_ms = milliseconds("since", since), milliseconds("until", until)
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise ValidationError("until", "is before since; give a later time")
    return _within(since_ms), _within(until_ms)


def _within(time_ms: int | None) -> int | None:
    """Return a time that SQLite can compare with, which has integers of 64 bits."""
    return None if time_ms is None else min(max(time_ms, -(2**63)), 2**63 - 1)
