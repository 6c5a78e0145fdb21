"""The outbox: a SQLite file that keeps every event until a receipt says it is stored elsewhere.

The rest of the package imports everything from here. Names are loaded on first use, so a process
that only logs never loads the modules for salvage and verification.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.outbox import read_only, status
    from tracker.outbox.files import file_lock, paths
    from tracker.outbox.files.file_lock import FileLock
    from tracker.outbox.files.lock_holders import is_stopped, upload_lock_holders
    from tracker.outbox.files.swap import damaged_sets, file_identity
    from tracker.outbox.integrity import chain_key, checkpoint, verify
    from tracker.outbox.integrity.chain import KeyMemory, Links, Problem, Unproven, is_seq
    from tracker.outbox.integrity.compare import Comparison, Held
    from tracker.outbox.integrity.proofs import Proofs
    from tracker.outbox.integrity.tree import StoredTree
    from tracker.outbox.integrity.verify import Gap, IntegrityReport
    from tracker.outbox.maintenance import erase
    from tracker.outbox.maintenance.log_growth import describe_readers, excess
    from tracker.outbox.outbox import Outbox
    from tracker.outbox.queue import (
        batches,
        browse,
        dead_letters,
        resend,
        settlement,
        sync_state,
    )
    from tracker.outbox.queue.batches import Batch
    from tracker.outbox.queue.browse import DEAD, Condition, StoredEvent, find
    from tracker.outbox.queue.earlier import Earlier
    from tracker.outbox.queue.settlement import DeadLetter, Remarks
    from tracker.outbox.queue.sync_state import SyncState
    from tracker.outbox.queue.urgent import Urgent
    from tracker.outbox.read_only import ReadOnlyOutbox, is_read_only
    from tracker.outbox.recovery import backup, damage
    from tracker.outbox.schema import create, errors, tables
    from tracker.outbox.schema.create import empty_outbox
    from tracker.outbox.schema.errors import is_disk_full
    from tracker.outbox.sqlite.engine import make_engine
    from tracker.outbox.status import OutboxStatus
    from tracker.outbox.store import identity, ledger
    from tracker.outbox.store.identity import Owner
    from tracker.outbox.store.ledger import Account
    from tracker.outbox.store.transaction import Transaction, driver_of

__all__ = [
    "DEAD",
    "Account",
    "Batch",
    "Comparison",
    "Condition",
    "DeadLetter",
    "Earlier",
    "FileLock",
    "Gap",
    "Held",
    "IntegrityReport",
    "KeyMemory",
    "Links",
    "Outbox",
    "OutboxStatus",
    "Owner",
    "Problem",
    "Proofs",
    "ReadOnlyOutbox",
    "Remarks",
    "StoredEvent",
    "StoredTree",
    "SyncState",
    "Transaction",
    "Unproven",
    "Urgent",
    "backup",
    "batches",
    "browse",
    "chain_key",
    "checkpoint",
    "create",
    "damage",
    "damaged_sets",
    "dead_letters",
    "describe_readers",
    "driver_of",
    "empty_outbox",
    "erase",
    "errors",
    "excess",
    "file_identity",
    "file_lock",
    "find",
    "identity",
    "is_disk_full",
    "is_read_only",
    "is_seq",
    "is_stopped",
    "ledger",
    "make_engine",
    "paths",
    "read_only",
    "resend",
    "settlement",
    "status",
    "sync_state",
    "tables",
    "upload_lock_holders",
    "verify",
]

_MODULES = {
    "tables": "tracker.outbox.schema.tables",
    "backup": "tracker.outbox.recovery.backup",
    "batches": "tracker.outbox.queue.batches",
    "browse": "tracker.outbox.queue.browse",
    "chain_key": "tracker.outbox.integrity.chain_key",
    "checkpoint": "tracker.outbox.integrity.checkpoint",
    "create": "tracker.outbox.schema.create",
    "damage": "tracker.outbox.recovery.damage",
    "dead_letters": "tracker.outbox.queue.dead_letters",
    "erase": "tracker.outbox.maintenance.erase",
    "errors": "tracker.outbox.schema.errors",
    "file_lock": "tracker.outbox.files.file_lock",
    "identity": "tracker.outbox.store.identity",
    "paths": "tracker.outbox.files.paths",
    "ledger": "tracker.outbox.store.ledger",
    "read_only": "tracker.outbox.read_only",
    "resend": "tracker.outbox.queue.resend",
    "settlement": "tracker.outbox.queue.settlement",
    "status": "tracker.outbox.status",
    "sync_state": "tracker.outbox.queue.sync_state",
    "verify": "tracker.outbox.integrity.verify",
}
_NAMES = {
    "Account": "tracker.outbox.store.ledger",
    "Batch": "tracker.outbox.queue.batches",
    "Earlier": "tracker.outbox.queue.earlier",
    "Comparison": "tracker.outbox.integrity.compare",
    "Condition": "tracker.outbox.queue.browse",
    "DEAD": "tracker.outbox.queue.browse",
    "DeadLetter": "tracker.outbox.queue.settlement",
    "FileLock": "tracker.outbox.files.file_lock",
    "Gap": "tracker.outbox.integrity.verify",
    "Held": "tracker.outbox.integrity.compare",
    "IntegrityReport": "tracker.outbox.integrity.verify",
    "KeyMemory": "tracker.outbox.integrity.chain",
    "Links": "tracker.outbox.integrity.chain",
    "Outbox": "tracker.outbox.outbox",
    "OutboxStatus": "tracker.outbox.status",
    "Owner": "tracker.outbox.store.identity",
    "Problem": "tracker.outbox.integrity.chain",
    "Proofs": "tracker.outbox.integrity.proofs",
    "ReadOnlyOutbox": "tracker.outbox.read_only",
    "Remarks": "tracker.outbox.queue.settlement",
    "StoredEvent": "tracker.outbox.queue.browse",
    "StoredTree": "tracker.outbox.integrity.tree",
    "SyncState": "tracker.outbox.queue.sync_state",
    "Transaction": "tracker.outbox.store.transaction",
    "Unproven": "tracker.outbox.integrity.chain",
    "Urgent": "tracker.outbox.queue.urgent",
    "damaged_sets": "tracker.outbox.files.swap",
    "describe_readers": "tracker.outbox.maintenance.log_growth",
    "driver_of": "tracker.outbox.store.transaction",
    "empty_outbox": "tracker.outbox.schema.create",
    "excess": "tracker.outbox.maintenance.log_growth",
    "file_identity": "tracker.outbox.files.swap",
    "find": "tracker.outbox.queue.browse",
    "is_disk_full": "tracker.outbox.schema.errors",
    "is_read_only": "tracker.outbox.read_only",
    "is_seq": "tracker.outbox.integrity.chain",
    "is_stopped": "tracker.outbox.files.lock_holders",
    "make_engine": "tracker.outbox.sqlite.engine",
    "upload_lock_holders": "tracker.outbox.files.lock_holders",
}
"""Where each of these names is defined; they are imported on first use."""


def __getattr__(name: str) -> object:
    value: object
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
