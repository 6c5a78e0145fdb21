"""The export for auditors, which can be verified without the outbox."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from tracker import canonical, queries
from tracker.errors import ValidationError
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.audit.lines import Manifest


class AuditExport(BaseTracker):
    """Exports events for an auditor."""

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
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise ValidationError("path", f"is {path!r}; give the path of a new file")
        milliseconds = queries.conversations.milliseconds
        since_ms, until_ms = milliseconds("since", since), milliseconds("until", until)
        if since_ms is not None and until_ms is not None and since_ms > until_ms:
            raise ValidationError("until", "is before since; give a later time")
        return self._client.read(
            partial(
                export,
                path=path,
                since_ms=since_ms,
                until_ms=until_ms,
                key=canonical.key_bytes(self.config.chain_key),
            )
        )
