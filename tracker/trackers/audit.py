"""What a compliance tracker can hand to an auditor: an export that can be checked by itself."""

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
    """Exports what the outbox holds."""

    def export_audit(
        self,
        path: str | os.PathLike[str],
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> Manifest:
        """Write the events logged from `since` until just before `until` to a new file.

        JSON Lines: a head, the events as the collector gets them, and a manifest with counts,
        first and last chain value and a seal over the file. ``tracker-sync verify --export FILE``
        checks it without the outbox. The events between the first and the last that are not of
        that time are there without their content, so that the chain can be followed.

        The file is written whole or not at all, for this user only (mode 0600). With
        `APIConfig.chain_key` the seal is made under it. Logging goes on meanwhile.

        Args:
            path: Where to write it; its folder exists, and nothing is there yet.
            since: The first moment: a datetime with a time zone, or Unix milliseconds. Default:
                the beginning of what is stored; delivered events leave the outbox after
                `APIConfig.retention_days`.
            until: The moment after the last one. Default: now.

        Returns:
            The manifest. Note its ``last_chain`` elsewhere: an export that was rewritten as a
            whole does not end in it.

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
            raise ValidationError("until", "lies before since; give a later moment")
        return self._client.read(
            partial(
                export,
                path=path,
                since_ms=since_ms,
                until_ms=until_ms,
                key=canonical.key_bytes(self.config.chain_key),
            )
        )
