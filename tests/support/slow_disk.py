"""A disk whose flush takes as long as a test says: a library loaded before the C library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int delayed(const char *name, int descriptor) {
    const char *delay = getenv("FLUSH_DELAY_US");
    if (delay) usleep(atoi(delay));
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(descriptor);
}
int fsync(int descriptor) { return delayed("fsync", descriptor); }
int fdatasync(int descriptor) { return delayed("fdatasync", descriptor); }
"""

COMPILER = shutil.which("cc") or shutil.which("gcc")
CANNOT = (
    "the flush can be slowed down on Linux only"
    if sys.platform != "linux"
    else None
    if COMPILER
    else "no C compiler is installed"
)
"""Why this machine cannot slow the flush down; None if it can."""


def slow_disk(folder: Path, milliseconds: float) -> dict[str, str]:
    """Return the environment of a process whose every flush takes so much longer."""
    assert COMPILER is not None
    source, library = folder / "slow_disk.c", folder / "slow_disk.so"
    if not library.exists():
        source.write_text(_SOURCE)
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-o", library, source, "-ldl"],
            check=True,
            capture_output=True,
        )
    return {"LD_PRELOAD": str(library), "FLUSH_DELAY_US": str(round(milliseconds * 1000))}
