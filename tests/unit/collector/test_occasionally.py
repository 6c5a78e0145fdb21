"""What the collector logs again and again is summed up."""

from __future__ import annotations

import logging

from tracker.collector.occasionally import Occasionally


def test_the_same_message_about_another_object_is_the_same() -> None:
    """A library names the object that failed by its address in memory."""
    filter_ = Occasionally()
    records = [
        logging.makeLogRecord({"name": "psycopg", "msg": f"ignored <Pipeline at {address:#x}>"})
        for address in (0x7FAB68BA8790, 0x7FAB68BA8791)
    ]
    assert [filter_.filter(record) for record in records] == [True, False]
