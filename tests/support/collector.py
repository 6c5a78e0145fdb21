"""A real `tracker-collector` process for tests, a client of it, and events to send it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

import tracker.collector
from tests.support.forked import Forked
from tracker import canonical
from tracker.collector.keys import Keys
from tracker.collector.store import Store
from tracker.events import from_wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from typing_extensions import Self

    _Running: TypeAlias = subprocess.Popen[str] | Forked

_DEADLINE_SECONDS = 30
_HTTP_SECONDS = 10
_PACKAGE_ROOT = Path(tracker.collector.__file__).parents[2]


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses.

    From below the range that outgoing connections get theirs from, so that it stays free while a
    collector is down.
    """
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("100 random ports are all in use")


class EventChain:
    """An outbox as the wire sees it: makes events with the right seq, digest and chain."""

    def __init__(self) -> None:
        self.outbox_id = str(uuid.uuid4())
        self.seq = 0
        self.chain = canonical.GENESIS

    def event(
        self, data: dict[str, Any] | None = None, *, salted: bool = True, **fields: Any
    ) -> dict[str, Any]:
        """Return the next event; `fields` replace those that the digest is made over.

        Without a salt it is like one of an outbox from before there were salts.
        """
        event = {
            "event_id": str(uuid.uuid4()),
            "type": "message.logged",
            "timestamp_ms": 1_790_000_000_000,
            "agent_id": "agent-1",
            "session_id": "session-1",
            "user_id": None,
            **fields,
        }
        if salted:
            event["salt"] = os.urandom(16).hex()
        event["data"] = {"role": "user", "content": "hé"} if data is None else data
        digest = canonical.digest_of(*from_wire({**event, "digest": ""}))
        self.seq += 1
        self.chain = canonical.chain(self.chain, digest)
        return {**event, "seq": self.seq, "digest": digest, "chain": self.chain}

    def events(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` events."""
        return [self.event() for _ in range(count)]

    def batch(
        self, events: list[Any], client_id: str = "test-client", **fields: Any
    ) -> dict[str, Any]:
        """Return a request body as an object; `fields` replace its own."""
        return {
            "protocol": 1,
            "client_id": client_id,
            "outbox_id": self.outbox_id,
            "sent_at_ms": 1_790_000_000_000,
            "events": events,
            **fields,
        }


class CollectorClient:
    """One client of a running collector, over HTTP."""

    def __init__(self, url: str, client_id: str, api_key: str) -> None:
        self.url = url
        self.client_id = client_id
        self.api_key = api_key
        self.headers = {"Authorization": f"Bearer {api_key}", "X-Client-ID": client_id}

    def post(self, body: object, **headers: str) -> requests.Response:
        """Post bytes as they are, anything else as JSON, to ``/v1/events``."""
        return requests.post(
            f"{self.url}/v1/events",
            data=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={**self.headers, **headers},
            timeout=_HTTP_SECONDS,
        )

    def send(self, chain: EventChain, events: list[Any]) -> dict[str, Any]:
        """Post a batch and return its receipt; an HTTPError if it is refused."""
        answer = self.post(chain.batch(events, self.client_id))
        answer.raise_for_status()
        receipt: dict[str, Any] = answer.json()
        return receipt

    def get(self, path: str, **parameters: object) -> Any:
        """Return the JSON that a GET is answered with; an HTTPError if it is refused."""
        answer = requests.get(
            self.url + path,
            headers=self.headers,
            params=parameters,  # type: ignore[arg-type] # requests turns anything to text
            timeout=_HTTP_SECONDS,
        )
        answer.raise_for_status()
        return answer.json()

    def events(self) -> list[dict[str, Any]]:
        """Return all of the client's events in the order they were stored."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.get("/v1/events", after=after, limit=1000)
            found += page["events"]
            after = page["next"]
        return found

    def outboxes(self) -> list[dict[str, Any]]:
        """Return the reports on the client's outboxes, in order of first receipt."""
        outboxes: list[dict[str, Any]] = self.get("/v1/outboxes", limit=1000)["outboxes"]
        return outboxes

    def conversation(self, session_id: str) -> dict[str, Any]:
        """Return one of the client's conversations; an HTTPError if it is unknown."""
        found: dict[str, Any] = self.get("/v1/conversations/" + quote(session_id, safe=""))
        return found


class CollectorProcess:
    """`tracker-collector serve` in a process of its own, on one port and one database.

    It can be started, stopped or killed, and started again any number of times. As a context
    manager it is started and stopped. The database and an API key are made at once, so that
    `url` and `api_key` can be handed out before the first start.

    Args:
        directory: Where the database is.
        port: TCP port of 127.0.0.1; None takes a free one and keeps it.
        client_id: The client that `api_key` is for.
        arguments: Further arguments for ``serve``, as in ``["--rate", "2"]``.
        database_url: Another database than the SQLite file in `directory`.
        prefix: A command that starts the process, as in ``["nice", "-n", "5"]``.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        client_id: str = "test-client",
        *,
        arguments: Sequence[str] = (),
        database_url: str | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.port = free_port() if port is None else port
        self.client_id = client_id
        self.database = directory / "collector.sqlite3"
        self.database_url = database_url or str(self.database)
        self.api_key = self.create_key(client_id)
        self._client = CollectorClient(self.url, client_id, self.api_key)
        self._arguments = tuple(arguments)
        self._prefix = tuple(prefix)
        self._process: _Running | None = None
        self._reader: threading.Thread | None = None
        self._spoke = threading.Event()
        self._wrote = threading.Condition()
        self._stderr: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs to be let in."""
        return self._client.headers

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def stderr(self) -> str:
        """What all runs so far wrote to stderr."""
        return "".join(self._stderr)

    def says(self, text: str) -> bool:
        """Wait until it has written `text` to stderr; return False if it does not."""
        with self._wrote:
            return self._wrote.wait_for(lambda: text in self.stderr, timeout=10)

    def create_key(self, client_id: str | None) -> str:
        """Make another API key, right in the database; an operator's for None."""
        with self.store() as store:
            return Keys(store).create(client_id)[0]

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """Lend the collector's own store, for what HTTP cannot do."""
        store = Store(self.database_url)
        try:
            yield store
        finally:
            store.close()

    def start(self) -> None:
        """Start the process and return when it answers that it is ready."""
        if self._process is not None:
            raise RuntimeError("the collector runs already")
        arguments = ["serve", "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--database", self.database_url, *self._arguments]
        # Beside a wheel the root is that of all libraries, which a test may hide by the variable.
        paths = [os.environ.get("PYTHONPATH", ""), str(_PACKAGE_ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._spoke.clear()
        self._process = self._launch(arguments, environment)
        self._reader = threading.Thread(
            target=self._listen, args=(self._process,), name="collector-stderr", daemon=True
        )
        self._reader.start()
        try:
            self._await_readiness(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """End the process in order (SIGTERM); return its exit code, 0 if it does not run."""
        return self._end("terminate")

    def kill(self) -> int:
        """End the process on the spot (SIGKILL); return its exit code, 0 if it does not run."""
        return self._end("kill")

    def client(self, client_id: str) -> CollectorClient:
        """Make a key for another client and return that client."""
        return CollectorClient(self.url, client_id, self.create_key(client_id))

    def get(self, path: str, **parameters: object) -> Any:
        """Return the JSON that a GET answers the client with."""
        return self._client.get(path, **parameters)

    def events(self) -> list[dict[str, Any]]:
        """Return all of the client's events in the order they were stored."""
        return self._client.events()

    def outboxes(self) -> list[dict[str, Any]]:
        """Return the reports on the client's outboxes, in order of first receipt."""
        return self._client.outboxes()

    def conversation(self, session_id: str) -> dict[str, Any]:
        """Return one of the client's conversations; an HTTPError if it is unknown."""
        return self._client.conversation(session_id)

    def _launch(self, arguments: list[str], environment: dict[str, str]) -> _Running:
        return subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "tracker.collector.main", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _await_readiness(self, process: _Running) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        if not self._spoke.wait(_DEADLINE_SECONDS):
            raise RuntimeError(f"the collector is not ready after {_DEADLINE_SECONDS} s")
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the collector ended: {self.stderr}")
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/readyz", timeout=_HTTP_SECONDS).ok:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the collector is not ready: {self.stderr}")

    def _listen(self, process: _Running) -> None:
        # Read to the end: a full pipe would block the process.
        assert process.stderr is not None
        for line in process.stderr:
            with self._wrote:
                self._stderr.append(line)
                self._wrote.notify_all()
            if line.startswith("listening on "):
                self._spoke.set()
        self._spoke.set()

    def _end(self, how: str) -> int:
        process, self._process = self._process, None
        if process is None or self._reader is None:
            return 0
        getattr(process, how)()
        try:
            code = process.wait(_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            self._reader.join(_DEADLINE_SECONDS)
            if process.stderr is not None:
                process.stderr.close()
        return code


class ForkedCollector(CollectorProcess):
    """A collector that is there at once, for the many tests that start one; see `forked`."""

    def _launch(self, arguments: list[str], environment: dict[str, str]) -> Forked:
        return Forked(arguments, environment)
