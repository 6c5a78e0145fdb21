"""Fifty outboxes that send to one ``tracker-collector`` on SQLite at the same time."""

from __future__ import annotations

import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from tests.benchmarks.drain import CLIENT, bodies
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, fill
from tests.benchmarks.pairs import SHOWN, percentile
from tests.benchmarks.threads import together
from tests.support.collector import CollectorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

OUTBOXES = 50
_PATIENCE_SECONDS = 60


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield events per second, a request's p99, and what receipts promised but is not there."""
    batches = scale.of(8, 2)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        arguments = ["--rate", "1000000"]
        with CollectorProcess(folder, client_id=CLIENT, arguments=arguments) as collector:
            taken = _Taken(collector)
            work = []
            for number in range(OUTBOXES):
                settings = config(folder, f"outbox-{number}", base_url=collector.url)
                fill(settings, batches * 500, first=number * 1_000)
                work.append([partial(taken.post, body) for body in bodies(settings)])
            turn = together(work)
            stored = sum(outbox["events"] for outbox in collector.outboxes())
    yield Figure(
        "collector",
        f"events stored per second from {OUTBOXES} concurrent outboxes",
        "",
        turn.per_second * 500,
        "events/s",
        details={
            "a request ms": [percentile([t / 1e6 for t in turn.took], p) for p in SHOWN],
            "requests": len(turn.took),
            "asked to come later": taken.refused,
        },
    )
    yield Figure(
        "collector.lost",
        "events that a receipt promised and the collector has not",
        "",
        taken.promised - stored,
        "events",
        most=0,
    )


class _Taken:
    """Posts bodies, as often as it takes, and counts what the receipts promise.

    `_lock` guards the counts.
    """

    def __init__(self, collector: CollectorProcess) -> None:
        self.promised = 0
        self.refused = 0
        self._url = f"{collector.url}/v1/events"
        self._headers = {**collector.headers, "Content-Encoding": "gzip"}
        self._lock = threading.Lock()
        self._local = threading.local()

    def post(self, body: bytes) -> None:
        """Post one batch on this thread's connection until there is a receipt."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            answer = self._session().post(
                self._url, data=body, headers=self._headers, timeout=_PATIENCE_SECONDS
            )
            if answer.status_code == 200 or time.monotonic() > end:
                break
            with self._lock:
                self.refused += 1
            time.sleep(float(answer.headers.get("Retry-After", "0.1")))
        answer.raise_for_status()
        receipt = answer.json()
        with self._lock:
            self.promised += receipt["accepted"] + receipt["duplicates"]

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
            self._local.session.headers["Content-Type"] = "application/json"
        session: requests.Session = self._local.session
        return session
