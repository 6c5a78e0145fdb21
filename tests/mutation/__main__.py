"""Draw mutants of named files at random, and print which of them the fast tests notice.

    python -m tests.mutation --seed 1 --count 200 tracker/outbox/store tracker/sync

The package is never changed in place: everything runs in a copy of the repository. Each result is
written to a file as soon as it is known, and a run with the same file goes on where one has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.parts import fast_tests_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parents[2]
_NEEDED = ("tracker", "migrations", "tests", "pyproject.toml", "README.md", "CHANGELOG.md", ".ci")
_SECONDS_PER_TEST = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return 1 if the tests fail without any mutant, else 0."""
    options = _options(arguments)
    drawn = draw(files(options.paths), options.seed, options.count)
    results = Path(options.results or Path(tempfile.gettempdir()) / f"mutants-{options.seed}.jsonl")
    known = read(results)
    say(f"{len(drawn)} mutants; results in {results}")
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        copy = Copy(Path(folder), options.tests)
        for mutant in drawn:
            if mutant.id not in known:
                limit = copy.limit(mutant.file)
                if limit is None:
                    say(f"the tests of {mutant.file} fail without any mutant")
                    return 1
                known[mutant.id] = copy.try_out(mutant, limit)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": mutant.id, "end": known[mutant.id]}) + "\n")
            say(f"{known[mutant.id]:9} {mutant}")
    summarize(drawn, known)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", help="files and folders of the package")
    parser.add_argument("--seed", type=int, default=1, help="which mutants are drawn")
    parser.add_argument("--count", type=int, default=30, help="how many are drawn")
    parser.add_argument("--results", help="the file that results are kept in")
    parser.add_argument("--tests", nargs="+", help="the tests to run, instead of the part's own")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's output


def files(paths: Iterable[str]) -> list[str]:
    """Return the modules that are meant, relative to the repository."""
    found: set[str] = set()
    for path in paths:
        whole = (ROOT / path).resolve()
        modules = whole.rglob("*.py") if whole.is_dir() else [whole]
        found |= {str(module.relative_to(ROOT)) for module in modules}
    return sorted(found)


def draw(modules: Iterable[str], seed: int, count: int) -> list[Mutant]:
    """Return so many mutants of the modules; the same for the same seed and source."""
    every = [one for file in modules for one in mutants(file, (ROOT / file).read_text("utf-8"))]
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return sorted(chance.sample(every, min(count, len(every))), key=lambda one: one.id[12:])


def read(results: Path) -> dict[str, str]:
    """Return how the mutants of earlier runs ended."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {line["id"]: line["end"] for line in lines}


class Copy:
    """A copy of the repository in which one mutant at a time is tried."""

    def __init__(self, folder: Path, tests: list[str] | None) -> None:
        self._folder = folder
        self._tests = tests
        self._limits: dict[tuple[str, ...], float | None] = {}
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
        for name in _NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, folder / name)

    def limit(self, file: str) -> float | None:
        """Return how many seconds the tests of a file may take; None if they fail as it is."""
        tests = tuple(self._chosen(file))
        if tests not in self._limits:
            began = time.monotonic()
            passed = self._run(tests, 900)
            self._limits[tests] = 20 + 3 * (time.monotonic() - began) if passed else None
        return self._limits[tests]

    def try_out(self, mutant: Mutant, limit: float) -> str:
        """Return "killed", "timeout", which counts as killed, or "survived"."""
        path = self._folder / mutant.file
        whole = path.read_text("utf-8")
        path.write_text(mutant.apply(whole), "utf-8")
        try:
            passed = self._run(self._chosen(mutant.file), limit)
        finally:
            path.write_text(whole, "utf-8")
        return {True: "survived", False: "killed", None: "timeout"}[passed]

    def _chosen(self, file: str) -> list[str]:
        return self._tests or fast_tests_of(file)

    def _run(self, tests: Iterable[str], limit: float) -> bool | None:
        """Return whether the tests pass; None if they take too long."""
        command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider"]
        command += ["--timeout", str(_SECONDS_PER_TEST), "--hypothesis-seed", "0", *tests]
        # What tests that are killed leave behind must not be in the way of others.
        scratch = tempfile.mkdtemp(dir=self._folder)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder),
            "TMPDIR": scratch,
            "PYTEST_DEBUG_TEMPROOT": scratch,
        }
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a hanging test has started
            process.wait()
            shutil.rmtree(scratch, ignore_errors=True)


def summarize(drawn: Sequence[Mutant], ends: dict[str, str]) -> None:
    """Print the rate, and the survivors with their lines."""
    survivors = [mutant for mutant in drawn if ends[mutant.id] == "survived"]
    killed = len(drawn) - len(survivors)
    for mutant in survivors:
        line = (ROOT / mutant.file).read_text("utf-8").splitlines()[mutant.line - 1].strip()
        say(f"survived  {mutant}\n          {line}")
    say(f"killed {killed} of {len(drawn)}: {100 * killed / max(1, len(drawn)):.0f} %")


if __name__ == "__main__":
    sys.exit(main())
