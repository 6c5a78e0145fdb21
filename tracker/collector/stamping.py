"""`Stamping`: time stamps of RFC 3161 over cosigned heads, asked for in the background."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

from tracker.collector.database import StorageError
from tracker.errors import ConfigurationError
from tracker.evidence.timestamp import (
    REPLY_TYPE,
    REQUEST_TYPE,
    TimestampError,
    look_at,
    request,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from tracker.collector.store import Store

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 60.0
_REQUEST_SECONDS = 20.0
_STOP_SECONDS = 2.0
_LARGEST_REPLY = 64 * 1024


class Stamping:
    """Asks a time stamp authority for a stamp over each outbox's newest head, once an hour.

    No request waits for it: it works in a thread of its own, which looks once a minute and whenever
    a head was cosigned. As a context manager it runs within the block.

    Args:
        store: The heads. Its owner closes it afterwards.
        url: The authority's address, which sees nothing but hashes.

    Raises:
        ConfigurationError: if it is not an address of HTTP.
    """

    def __init__(self, store: Store, url: str) -> None:
        if not url.startswith(("http://", "https://")) or not url.partition("//")[2].isprintable():
            raise ConfigurationError(f"{url!r} is not the http(s) address of an authority")
        self._store = store
        self._url = url
        self._opener = urllib.request.build_opener()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="time stamps", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._store.head_cosigned.set()
        self._thread.join(_STOP_SECONDS)

    def round(self) -> int:
        """Get all stamps that are due, and return how many there were.

        The round ends at the first that fails, which is logged; the next one tries again.
        """
        done = 0
        try:
            for head_id, note in self._store.heads_to_stamp(_now_ms()):
                if self._stopping:
                    break
                self._store.add_timestamp(head_id, self._stamp(note.encode()), _now_ms())
                done += 1
        except (OSError, http.client.HTTPException, TimestampError, StorageError) as error:
            logger.warning("no time stamp: %s", error)
        return done

    def _run(self) -> None:
        while True:
            self._store.head_cosigned.clear()
            if self._stopping:
                return
            self.round()
            self._store.head_cosigned.wait(_ROUND_SECONDS)

    def _stamp(self, data: bytes) -> bytes:
        asked = urllib.request.Request(  # noqa: S310 - the operator's own address, of HTTP
            self._url, request(data), {"Content-Type": REQUEST_TYPE, "Accept": REPLY_TYPE}
        )
        with self._opener.open(asked, timeout=_REQUEST_SECONDS) as answer:
            reply: bytes = answer.read(_LARGEST_REPLY)
        look_at(reply, data)
        return reply


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
