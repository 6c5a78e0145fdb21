"""PgBouncer on the way to the leader, as the page about deployment sets it up."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.fleet.page import DATABASE_HOSTS, block, placed
from tests.fleet.programs import Program, find, listens, user, wait_for
from tests.support.collector import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.cluster import Cluster

_PROXY = "# /etc/haproxy/haproxy.cfg on the replicas' machines"


class Pooler:
    """PgBouncer, and the HAProxy that tells it the leader.

    Attributes:
        url: A database by way of both.
    """

    def __init__(self, folder: Path, cluster: Cluster, database: str) -> None:
        leader, self._port = free_port(), free_port()
        self.url = (
            f"postgresql+psycopg://tracker:change-me-tracker@127.0.0.1:{self._port}/{database}"
        )
        nodes = {
            f"{host}:5432 port 8008": f"127.0.0.1:{node.port} port {node.api.partition(':')[2]}"
            for host, node in zip(DATABASE_HOSTS, cluster.nodes, strict=True)
        }
        proxy, pooler = folder / "leader.cfg", folder / "pgbouncer.ini"
        proxy.write_text(
            placed(block("haproxy", _PROXY), {"127.0.0.1:5000": f"127.0.0.1:{leader}", **nodes})
        )
        pooler.write_text(
            placed(
                block("ini", "; /etc/pgbouncer/pgbouncer.ini"),
                {
                    "tracker = host=127.0.0.1 port=5000": f"{database} = host=127.0.0.1"
                    f" port={leader} dbname={database}",
                    "listen_port = 6432": f"listen_port = {self._port}\nunix_socket_dir =",
                    "/etc/pgbouncer/userlist.txt": f"{folder}/userlist.txt",
                },
            )
        )
        (folder / "userlist.txt").write_text('"tracker" "change-me-tracker"\n')
        if (name := user()) is not None:
            shutil.chown(folder / "userlist.txt", name)
        self._programs = [
            Program("haproxy", [str(find("haproxy")), "-f", str(proxy), "-db"],
                    folder / "leader.log"),
            Program("pgbouncer", [str(find("pgbouncer")), str(pooler)], folder / "pgbouncer.log"),
        ]  # fmt: skip

    def start(self) -> None:
        """Start both, and return when PgBouncer listens."""
        for program in self._programs:
            program.start()
        wait_for(lambda: listens(self._port), "PgBouncer listens", 30, self._programs[1])

    def end(self) -> None:
        """End both."""
        for program in self._programs:
            program.end()
