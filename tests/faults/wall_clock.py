"""A wall clock that a test sets while a process runs.

libfaketime was tried first: version 0.9.10, told to leave the monotonic clock alone, makes Python
3.11's ``time.sleep`` fail with EINVAL.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")


def why_not() -> str:
    """Return why there can be no such clock here, or nothing."""
    if sys.platform != "linux":
        return "the wall clock of a process is set with LD_PRELOAD, on Linux"
    return (
        "" if shutil.which("cc") else "the wall clock of a process is set with C code, without cc"
    )


class WallClock:
    """The wall clock of processes that are given its `environment`.

    Args:
        folder: Where its library and its setting are.
    """

    def __init__(self, folder: Path) -> None:
        self._setting = folder / "wall-clock"
        library = folder / "wall_clock.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"],
            check=True,
        )
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(self._setting)}

    def set(self, ahead: int, *, step_back: float = 0.0) -> None:
        """Let the clock be so many seconds ahead.

        `step_back` is how many seconds it falls behind with each time that somebody looks at it.
        """
        new = self._setting.with_suffix(".new")
        new.write_text(f"{ahead} {int(step_back * 1e9)}")
        new.replace(self._setting)
