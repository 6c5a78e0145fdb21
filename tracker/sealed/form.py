"""The form of sealed files: their kinds, their bounds, and their errors."""

from __future__ import annotations

from tracker.errors import TrackerError

BUNDLE = "tracker-bundle"
"""The kind of file that carries request bodies to a collector."""
RECEIPTS = "tracker-receipts"
"""The kind of file that carries its answers back."""
VERSION = 1
"""The version of both."""

MOST_LINE = 1024 * 1024
"""Bytes of a line: 500 event ids of some length are in one."""
MOST_CONTENT = 16 * 1024 * 1024
"""Bytes of one body or answer: twice what a collector accepts."""


class SealError(TrackerError):
    """A file is not a whole sealed file of its kind, or not one with the seal of the given key."""
