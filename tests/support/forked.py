"""The collector in processes forked from one that has imported it: starting one takes no time.

Each is a process like one that was started by its command line, but for the import: it has the
arguments, environment and standard error that it is given, and can be stopped and killed.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

_FORKS = multiprocessing.get_context("forkserver")


class Forked:
    """A running collector, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        _FORKS.set_forkserver_preload(
            ["tracker.collector.main", "tracker.collector.app", "uvicorn"]
        )
        with mock.patch.dict(os.environ, environment):  # where it finds the package
            forkserver.ensure_running()
        reader, writer = _FORKS.Pipe(duplex=False)
        with writer:
            self._process = _FORKS.Process(
                target=_run, args=(list(arguments), dict(environment), writer), daemon=True
            )
            self._process.start()
        self.stderr = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("the collector", timeout or 0)
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(arguments: list[str], environment: dict[str, str], stderr: Connection) -> None:
    from tracker.collector.main import main

    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = ["tracker-collector", *arguments]
    main()
