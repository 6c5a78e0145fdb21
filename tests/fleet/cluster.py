"""Three PostgreSQL servers under Patroni, with etcd, as the page about deployment sets them up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import requests
from psycopg import sql

from tests.fleet.page import DATABASE_HOSTS, block, placed, variables
from tests.fleet.programs import Program, children_of, find, user, wait_for
from tests.support.collector import free_port
from tests.support.postgresql import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 120.0
FAILOVER_SECONDS = 120.0
"""How long a test waits; how long it took is another question."""
_HTTP_SECONDS = 3
_URL = "COLLECTOR_DATABASE_URL=postgresql+psycopg://tracker:change-me-tracker@/"


class Etcd:
    """One etcd server; the page has three."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        peers = f"http://127.0.0.1:{free_port()}"
        self.program = Program(
            "etcd",
            [
                str(find("etcd")), "--name", "etcd", "--data-dir", f"{folder}/etcd",
                "--listen-client-urls", f"http://{self.address}",
                "--advertise-client-urls", f"http://{self.address}",
                "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                "--initial-cluster", f"etcd={peers}", "--log-level", "warn",
            ],
            folder / "etcd.log",
        )  # fmt: skip

    def answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{self.address}/health", timeout=_HTTP_SECONDS).ok
        return False


class Node:
    """One PostgreSQL server and its Patroni, which answers HTTP at `api`."""

    def __init__(self, folder: Path, number: int, etcd: str) -> None:
        self.name = f"pg{number}"
        self.port = free_port()
        self.data = folder / self.name
        self.api = f"127.0.0.1:{free_port()}"
        host = DATABASE_HOSTS[0]
        hosts = ", ".join(f"{each}:2379" for each in DATABASE_HOSTS)
        settings = placed(
            block("yaml", "# /etc/patroni/config.yml"),
            {
                "name: pg1": f"name: {self.name}",
                hosts: etcd,
                f"{host}:8008": self.api,
                f"{host}:5432": f"127.0.0.1:{self.port}",
                "10.0.0.0/24": "127.0.0.0/8",
                "/var/lib/postgresql/15/tracker": str(self.data),
                "/var/lib/postgresql/tracker.pgpass": f"{folder}/{self.name}.pgpass",
                "/var/run/postgresql": str(folder),
                "/usr/lib/postgresql/15/bin": str(programs()),
                "/srv/wal": f"{folder}/wal",
            },
        )
        file = folder / f"{self.name}.yml"
        file.write_text(settings)
        self.program = Program(self.name, [str(find("patroni")), str(file)],
                               folder / f"{self.name}.log")  # fmt: skip

    def start(self) -> None:
        self.program.start()

    def kill(self) -> None:
        """Kill Patroni and every process of the server on the spot, as a machine dies."""
        self.program.end()
        server = self._server()
        if server is not None:
            self._signal(signal.SIGKILL)
            wait_for(lambda: self._server() is None, f"{self.name} is dead", 30)

    def end(self) -> None:
        """End both at once, but let the server remove its shared memory."""
        self.program.end()
        self.thaw()
        if (server := self._server()) is not None:
            os.kill(server, signal.SIGQUIT)
            wait_for(lambda: self._server() is None, f"{self.name} has ended", 30)

    def freeze(self) -> None:
        """Let it receive and acknowledge nothing more, though it stays connected."""
        for pid in self._receivers():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in self._receivers():
            os.kill(pid, signal.SIGCONT)

    def _receivers(self) -> list[int]:
        server = self._server()
        children = [] if server is None else children_of(server)
        return [pid for pid in children if "walreceiver" in _command(pid)]

    def _signal(self, number: signal.Signals) -> None:
        server = self._server()
        pids = [] if server is None else [server, *children_of(server)]
        for pid in [*pids, *([self.program.pid] if self.program.runs else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def state(self) -> dict[str, Any]:
        """Return what Patroni says of itself; nothing if it does not answer."""
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = requests.get(f"http://{self.api}/patroni", timeout=_HTTP_SECONDS)
            found: dict[str, Any] = answer.json()
            return found
        return {}

    def leads(self) -> bool:
        """Return True if Patroni says that it holds the leader's lock."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{self.api}/primary", timeout=_HTTP_SECONDS).ok
        return False

    def may_follow(self) -> bool:
        """Return True if etcd names it as a synchronous standby, which may become the leader."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{self.api}/synchronous", timeout=_HTTP_SECONDS).ok
        return False

    def _server(self) -> int | None:
        """Return the process of the server, if it runs."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            if "postgres" in _command(pid):
                return pid
        return None


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


class Cluster:
    """Patroni's three servers in a folder, and the one that leads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "wal").mkdir()
        if (name := user()) is not None:
            shutil.chown(folder, name)
            shutil.chown(folder / "wal", name)
        self.etcd = Etcd(folder)
        self.nodes = [Node(folder, number, self.etcd.address) for number in (1, 2, 3)]
        self._made: list[str] = []

    def start(self, data: Path | None = None) -> None:
        """Start everything, on the data of a former cluster if they are given."""
        self.etcd.program.start()
        wait_for(self.etcd.answers, "etcd", START_SECONDS, self.etcd.program)
        first = self.nodes[0]
        if data is not None:
            data.rename(first.data)
            first.start()
            wait_for(first.leads, "the first leads", START_SECONDS, first.program)
        self.await_whole()
        if data is None:
            for statement in block("sql").split(";"):
                if statement.strip():
                    self.execute(statement)

    def end(self) -> None:
        """End everything that still runs."""
        for node in self.nodes:
            node.end()
        self.etcd.program.end()

    def leader(self) -> Node:
        """Return the node that leads; wait for one."""
        wait_for(lambda: any(node.leads() for node in self.nodes), "there is a leader",
                 FAILOVER_SECONDS, *(node.program for node in self.nodes))  # fmt: skip
        return next((node for node in self.nodes if node.leads()), self.nodes[0])

    def await_leader(self, former: Node) -> Node:
        """Wait until another node than `former` leads, and return it."""
        others = [node for node in self.nodes if node is not former]
        wait_for(lambda: any(node.leads() for node in others), "another node leads",
                 FAILOVER_SECONDS, *(node.program for node in self.nodes))  # fmt: skip
        return next(node for node in others if node.leads())

    def await_whole(self) -> float:
        """Start what does not run, wait until all follow one leader; return how long it took."""
        for node in self.nodes:
            if not node.program.runs:
                node.start()
        return wait_for(self._is_whole, "a leader has two standbys, one of them synchronous",
                        START_SECONDS, *(node.program for node in self.nodes))  # fmt: skip

    def configure(self, **settings: object) -> None:
        """Change settings of the whole cluster, as ``patronictl edit-config`` does."""
        api = f"http://{self.leader().api}/config"
        requests.patch(api, json=settings, timeout=_HTTP_SECONDS).raise_for_status()

    def standby_names(self) -> str:
        """Return ``synchronous_standby_names`` of the leader."""
        return str(self.execute("SHOW synchronous_standby_names")[0][0])

    def new_database(self) -> str:
        """Make an empty database of the collector's role, as the page does; return its name."""
        name = f"t{uuid.uuid4().hex[:12]}"
        made = block("sql").strip().split(";")[-2]
        self.execute(made.replace("DATABASE tracker", f"DATABASE {name}"))
        self._made.append(name)
        return name

    def drop_databases(self) -> None:
        """Drop what `new_database` has made."""
        while self._made:
            name = sql.Identifier(self._made.pop())
            self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def url(self, name: str) -> str:
        """Return the URL of a database for the collector, as the page has it."""
        found = variables(block("text", _URL))
        ports = {f"{host}:5432": f"127.0.0.1:{node.port}"
                 for host, node in zip(DATABASE_HOSTS, self.nodes, strict=True)}  # fmt: skip
        return placed(found["COLLECTOR_DATABASE_URL"], {**ports, "@/tracker?": f"@/{name}?"})

    def connect(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """Connect to the leader as the superuser, without a transaction."""
        return psycopg.connect(
            host=",".join("127.0.0.1" for _ in self.nodes),
            port=",".join(str(node.port) for node in self.nodes),
            user="postgres", password="change-me-postgres", dbname=name,
            target_session_attrs="read-write", connect_timeout=5, autocommit=True,
        )  # fmt: skip

    def execute(self, statement: Any, name: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement at the leader and return its rows."""
        with self.connect(name) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _is_whole(self) -> bool:
        with contextlib.suppress(psycopg.Error):
            rows = self.execute(
                "SELECT count(*), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum'))"
                " FROM pg_stat_replication WHERE state = 'streaming'"
                " AND application_name LIKE 'pg%'"
            )
            leads = [node for node in self.nodes if node.leads()]
            # PostgreSQL takes a standby for synchronous before Patroni has written down which one:
            # between the two, the death of the leader leaves nobody who may follow it.
            may_follow = any(node.may_follow() for node in self.nodes)
            return rows[0][0] == 2 and rows[0][1] >= 1 and len(leads) == 1 and may_follow
        return False


@contextlib.contextmanager
def running_cluster(data: Path | None = None) -> Iterator[Cluster]:
    """Lend a cluster that has just been made, on the data of a former one if they are given.

    Ask `programs.why_not` before.
    """
    # Not in pytest's folder: the servers run as somebody who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    cluster = Cluster(folder)
    try:
        cluster.start(data)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder)
