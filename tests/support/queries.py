"""Queries of pages as nobody's browser would make them, for Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = (
    *(
        "agent",
        "before",
        "by",
        "client",
        "environment",
        "id",
        "outbox",
        "part",
        "period",
        "release",
    ),
    *("session", "state", "status", "tag", "text", "token", "type", "user"),
)
"""Every parameter that some page knows."""
_SAID = (
    *("", "0", "1", "-1", "9" * 19, "9" * 30, "24h", "30d", "day", "model", "session", "dead"),
    *("pending", "failed", "open", "site=oslo", "=", "a=", "llm.*", ".*", "*", "order-7"),
    *("agent_123", "user_7", "%", "_", "\\", "\0", "\u202e", "\ud800", "'; --", "{{7*7}}", "<b>"),
    *("0" * 32, "f" * 32, "x" * 2_000, "x" * 2_001),
)


def queries(paths: Sequence[str]) -> st.SearchStrategy[tuple[str, list[tuple[str, str]]]]:
    """Return a strategy for one of some paths, and the names and values of its query."""
    # A browser and a server send no half of a surrogate pair but as bytes that are not UTF-8.
    value = st.sampled_from(_SAID) | st.text(max_size=30)
    pair = st.tuples(st.sampled_from(NAMES) | st.text(max_size=5), value)
    return st.tuples(st.sampled_from(paths), st.lists(pair, max_size=5))
