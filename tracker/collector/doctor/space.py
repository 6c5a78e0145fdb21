"""How much room is left on a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.collector.doctor.finding import Finding

if TYPE_CHECKING:
    from shutil import _ntuple_diskusage

_GIB = 2**30
_FEW_BYTES = 5 * _GIB
_TOO_FEW_BYTES = _GIB // 2
_FEW_PERCENT = 10


def space(takes: str, usage: _ntuple_diskusage) -> Finding:
    """Return what there is to say of a disk, beside how much the database takes."""
    percent = 100 * usage.free / max(1, usage.total)
    message = f"{takes}; {usage.free / _GIB:,.1f} GiB are free there ({percent:.0f} %)"
    if usage.free < _TOO_FEW_BYTES:
        return Finding("disk", "problem", message, "make room: batches are answered 503 when full")
    if usage.free < _FEW_BYTES and percent < _FEW_PERCENT:
        return Finding("disk", "warning", message, "make room")
    return Finding("disk", "ok", message)
