"""A backup, a restore to the end of the archive and one to an earlier time, and what devices do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from tests.fleet.cluster import running_cluster
from tests.fleet.devices import Receipt, Upload
from tests.fleet.page import DATABASE_HOSTS, block, placed
from tests.fleet.programs import user, wait_for
from tests.fleet.proof import NOTHING_WRONG, prove
from tests.fleet.replicas import Keeper, Replica
from tests.support.collector import free_port
from tests.support.postgresql import programs
from tracker.cli.main import cli as tracker_sync

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.cluster import Cluster
    from tests.fleet.conftest import Fleet, Tell

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(1_800)]

TARGET = " -c recovery_target_time='2026-11-30 12:00:00+00'"


class Restored:
    """A server that was restored from a backup and the archive; it ends with the block.

    Its files are in the folder `data`, and stay.
    """

    def __init__(self, cluster: Cluster, until: str | None) -> None:
        self.port = free_port()
        self.data = cluster.folder / f"restored-{self.port}"
        self._text = placed(
            block("bash", "# as postgres"),
            {
                "/srv/backup/base": f"{cluster.folder}/base",
                "/srv/wal": f"{cluster.folder}/wal",
                "/var/lib/postgresql/15/restored": str(self.data),
                "/var/log/postgresql/restored.log": f"{cluster.folder}/restored.log",
                "-p 5433": f"-p {self.port}",
                "/var/run/postgresql": str(cluster.folder),
                TARGET: "" if until is None else f" -c recovery_target_time='{until}'",
            },
        )

    def __enter__(self) -> Restored:
        try:
            bash(self._text)
            wait_for(self._takes_writes, "recovery has ended", 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        bash(f"pg_ctl stop --mode=fast --pgdata={self.data}")

    def connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database,
            password="change-me-postgres", autocommit=True,
        )  # fmt: skip

    def _takes_writes(self) -> bool:
        with self.connect("postgres") as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def bash(text: str) -> None:
    """Run lines of the page as the user of the servers."""
    environment = {
        "PATH": f"{programs()}:{os.environ['PATH']}",
        "PGPASSWORD": "change-me-replicator",
    }
    with tempfile.TemporaryFile("w+") as said:  # a server keeps it open: a pipe would never end
        done = subprocess.run(
            ["bash", "-euc", text], check=False, cwd="/", user=user(), env=environment,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=300,
        )  # fmt: skip
        said.seek(0)
        assert done.returncode == 0, said.read()


def back_up(cluster: Cluster) -> None:
    hosts = f"host={','.join(DATABASE_HOSTS)} port=5432,5432,5432"
    here = (
        f"host={','.join('127.0.0.1' for _ in cluster.nodes)}"
        f" port={','.join(str(node.port) for node in cluster.nodes)}"
    )
    places = {"/srv/backup/base": f"{cluster.folder}/base", hosts: here}
    bash(placed(block("bash", "# into a new folder"), places))


def archive(cluster: Cluster) -> str:
    """Have everything so far archived; return the time after it."""
    ((name, moment),) = cluster.execute("SELECT pg_walfile_name(pg_switch_wal()), now()::text")
    path = cluster.folder / "wal" / name
    wait_for(path.exists, "the segment is archived", 120)
    return str(moment)


def test_a_restore_has_what_was_archived_and_devices_send_the_rest_again(
    fleet: Fleet, tell: Tell
) -> None:
    """Three waves: before a moment, before the last archived segment, and after it."""
    cluster, database = fleet.cluster, fleet.database
    with Keeper(fleet.replicas):
        devices = fleet.register(20)
        uploads = [Upload(fleet.folder, fleet.balancer, device) for device in devices]
        first = wave(uploads)
        back_up(cluster)
        second = wave(uploads)
        moment = archive(cluster)
        third = wave(uploads)
        archive(cluster)
        fourth = wave(uploads)
    with Restored(cluster, None) as whole, whole.connect(database) as connection:
        assert prove(connection, [*first, *second, *third]) == NOTHING_WRONG
        not_archived = prove(connection, fourth).lost
    with Restored(cluster, moment) as former, former.connect(database) as connection:
        assert prove(connection, [*first, *second]) == NOTHING_WRONG
        assert prove(connection, third).lost == len(third)
    with running_cluster(former.data) as successor:
        replica = take_the_place_of(fleet.replicas[0], successor.url(database), fleet.folder)
        try:
            for upload in uploads:
                again(upload)
        finally:
            replica.program.end()
        everything = [*first, *second, *third, *fourth]
        with successor.connect(database) as connection:
            assert prove(connection, everything) == NOTHING_WRONG
    tell(
        f"restored to the end of the archive: {not_archived} of {len(everything)} events with a"
        f" receipt were not in it; to an earlier time: {len(third) + len(fourth)}; after `resend`"
        " of 20 devices: 0"
    )


def wave(uploads: list[Upload]) -> list[Receipt]:
    return [receipt for upload in uploads for receipt in upload.log(5)]


def take_the_place_of(replica: Replica, url: str, folder: Path) -> Replica:
    """Start a replica on another database where the balancer looks for `replica`."""
    other = Replica(folder, url, port=replica.port)
    other.program.start()
    other.await_ready()
    return other


def again(upload: Upload) -> None:
    """Send again what was delivered within two hours, by the page's commands."""
    for line in block("sh").splitlines():
        done = CliRunner().invoke(tracker_sync, line.split()[1:], env=upload.environment)
        assert done.exit_code == 0, done.output
