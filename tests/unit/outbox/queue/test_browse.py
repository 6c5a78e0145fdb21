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
    fields = event._replace(data=data, digest=canonical.digest_of(*event))
    return StoredEvent(1, *fields[:8], "chain", 1, None, None, None, *fields[8:])


@pytest.mark.parametrize(
    ("data", "digest_of", "erased"),
    [
        (ERASED, '{"content":"mine"}', False),
        (ERASED, ERASED, False),
        ('{"content":"changed"}', '{"content":"mine"}', False),
        ('{"content":"mine"}', '{"content":"mine"}', False),
    ],
    ids=["marked by hand", "logged as if erased", "changed", "untouched"],
)
def test_only_what_was_replaced_by_the_marker_was_erased(
    data: str, digest_of: str, erased: bool
) -> None:
    """Neither what somebody logs that looks like it, nor what was changed in another way."""
    assert stored(data, digest_of).erased is erased


def test_what_an_erasure_left_is_erased() -> None:
    """With commitments that fit the digest, or from before there were salts."""
    event = an_event()
    assert event.salt is not None
    sealed = canonical.seal(event.user_id, event.data, event.salt)
    erased = event._replace(data=ERASED, salt=None, sealed=sealed)
    unsalted = event._replace(data=ERASED, salt=None)
    for fields, state in ((erased, True), (unsalted, True),
                          (erased._replace(sealed=bytes(64)), False)):  # fmt: skip
        found = StoredEvent(1, *fields[:8], "chain", 1, None, None, None, *fields[8:])
        assert found.erased is state
