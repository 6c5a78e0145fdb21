"""`Copies`: what follows when a receipt shows that another copy of the outbox has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import log
from tracker.once import Once
from tracker.outbox import sync_state

if TYPE_CHECKING:
    from tracker.outbox import Batch, Outbox, Remarks
    from tracker.sync.destination import SignedHead


class Copies:
    """Has an outbox go on under another outbox id if a receipt says that it must."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._warned = Once()
        self._witness: SignedHead | None = None  # the newest that is noted

    def look_at(self, batch: Batch, remarks: Remarks | None, witness: SignedHead | None) -> None:
        """Follow what the receipt of a settled batch says of the outbox.

        Raises:
            OutboxError: if the outbox cannot be read or written.
        """
        if batch.outbox_id != self._outbox.owner.outbox_id:
            return  # what it says concerns a former outbox id
        if remarks is not None and (remarks.warning or (remarks.highest_seq or 0) > batch.through):
            self._follow_warning()
        elif witness is not None and witness != self._witness:
            self._keep_witness(witness)

    def _follow_warning(self) -> None:
        """Log, once for each, what a receipt warned of, and go on under another outbox id."""
        with self._outbox.reading() as connection:
            warning = sync_state.read_state(connection).warning
        if warning is not None:
            self._renew(warning)

    def _keep_witness(self, witness: SignedHead) -> None:
        self._witness = witness
        if not self._outbox.note_witness(*witness):
            self._renew(sync_state.ROLLED_BACK)

    def _renew(self, warning: str) -> None:
        if self._warned.is_new(warning):
            log.warning("%s: %s", self._outbox.path, sync_state.describe_warning(warning))
        if warning in (sync_state.FORKED, sync_state.ROLLED_BACK):
            self._outbox.renew(warning)
