"""Stored events as they are listed and shown."""

from __future__ import annotations

import pytest

from tests.support.cli import an_event
from tracker import canonical
from tracker.erasure import ERASED
from tracker.outbox.queue.browse import StoredEvent


def stored(data: str, digest_of: str) -> StoredEvent:
    """Return a delivered row with these data, and the digest that it has with others."""
    event = an_event()._replace(data=digest_of)
    digest = canonical.digest(canonical.envelope(*event[:7]))
    fields = event._replace(data=data, digest=digest)
    return StoredEvent(1, *fields, "chain", 1, None, None, None)


@pytest.mark.parametrize(
    ("data", "digest_of", "erased"),
    [
        (ERASED, '{"content":"mine"}', True),
        (ERASED, ERASED, False),
        ('{"content":"changed"}', '{"content":"mine"}', False),
        ('{"content":"mine"}', '{"content":"mine"}', False),
    ],
    ids=["erased", "logged as if erased", "changed", "untouched"],
)
def test_only_what_was_replaced_by_the_marker_was_erased(
    data: str, digest_of: str, erased: bool
) -> None:
    """Neither what somebody logs that looks like it, nor what was changed in another way."""
    assert stored(data, digest_of).erased is erased
