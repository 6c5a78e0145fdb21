"""`Finding`: what one check found."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        check: What was checked.
        status: ``problem`` if events or receipts are in danger, or nothing works.
        message: How things stand.
        action: What to do, or None.
    """

    check: str
    status: Status
    message: str
    action: str | None = None
