"""A cluster for all tests of a run; for each test a database, replicas and a balancer."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.fleet.balancer import Balancer
from tests.fleet.cluster import Cluster, running_cluster
from tests.fleet.devices import Device, register
from tests.fleet.programs import why_not
from tests.fleet.replicas import Replica

if TYPE_CHECKING:
    from pathlib import Path

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fleet:
    """Replicas on a database of a cluster, and the balancer before them."""

    cluster: Cluster
    database: str
    replicas: list[Replica]
    balancer: Balancer
    folder: Path

    def register(self, count: int) -> list[Device]:
        """Make as many clients, each with a key."""
        return register(self.folder, self.cluster.url(self.database), count)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the tests run in full."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def seed() -> int:
    """What all that is random is drawn from; FLEET_SEED repeats a run."""
    return int(os.environ.get("FLEET_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Print a line of figures, which pytest's parallel workers share with the run."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\nfleet: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the figures

    return say


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster for the whole run: starting one takes a while."""
    if reason := why_not():
        pytest.skip(reason)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole, whatever the test before did to it."""
    for node in shared_cluster.nodes:
        node.thaw()
    shared_cluster.await_whole()
    yield shared_cluster
    for node in shared_cluster.nodes:
        node.thaw()
    shared_cluster.await_whole()
    shared_cluster.drop_databases()


@pytest.fixture
def fleet(cluster: Cluster, tmp_path: Path) -> Iterator[Fleet]:
    """Three replicas on an empty database, which nobody has started yet, and a balancer."""
    database = cluster.new_database()
    replicas = [Replica(tmp_path, cluster.url(database)) for _ in range(3)]
    folder = cluster.folder / database
    folder.mkdir()
    balancer = Balancer(folder, [replica.port for replica in replicas])
    try:
        balancer.start()
        yield Fleet(cluster, database, replicas, balancer, tmp_path)
    finally:
        balancer.program.end()
        for replica in replicas:
            replica.program.end()
        shutil.rmtree(folder)
