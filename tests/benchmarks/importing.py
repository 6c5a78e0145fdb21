"""``import tracker`` against ``import sqlalchemy``: time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

_TIME_IT = """
import time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
with open("/proc/self/status") as status:
    rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
print(took, rss / 1024)
"""


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield time and memory, each import in a new interpreter."""
    ours, floor = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in turns(scale.of(20, 8)):
            ours.append(_import("tracker", folder))
            floor.append(_import("sqlalchemy", folder))
    del ours[0], floor[0]  # the first compiled all that it imported
    ratios = [mine[0] / other[0] for mine, other in zip(ours, floor, strict=True)]
    yield Figure(
        "import",
        "import tracker",
        "import sqlalchemy",
        median(ratios),
        most=1.25,
        details={
            "tracker ms": median(took for took, _ in ours) * 1000,
            "sqlalchemy ms": median(took for took, _ in floor) * 1000,
        },
    )
    mine, other = (median(rss for _, rss in side) for side in (ours, floor))
    yield Figure(
        "import.memory",
        "RSS after import tracker",
        "RSS after import sqlalchemy",
        mine - other,
        "MB more",
        most=6,
        details={"tracker MB": mine, "sqlalchemy MB": other},
    )


def _import(module: str, folder: str) -> tuple[float, float]:
    """Return the seconds that the import took, and the resident memory after it in MB.

    Bytecode is kept in `folder`, as an installation keeps it: a checkout has none at first.
    """
    code = _TIME_IT.format(module=module)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    took, rss = done.stdout.split()
    return float(took), float(rss)
