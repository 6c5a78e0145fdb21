"""``tracker-sync demo``: the main job in a few seconds, with real processes."""

from __future__ import annotations

import importlib.util
import sys

import click

_EXTRA_MISSING = (
    "tracker-sync demo starts a collector, and that needs the extra: "
    "pip install 'agent-tracking-sdk[collector]'"
)


@click.command()
@click.option("--keep", is_flag=True, help="Keep the data, to look for yourself.")
def demo(keep: bool) -> None:
    """Show with real processes that no acknowledged event is lost.

    An agent logs conversations while its collector is down, and is killed with SIGKILL in the
    middle of one. Then both come back, and what arrived is held against what was acknowledged.
    All of it happens on this machine, in a temporary folder. Exit code: 0 if every check held,
    1 if not, 2 if the extra [collector] is missing.
    """
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")):
        click.echo(_EXTRA_MISSING, err=True)
        sys.exit(2)
    # Only now: tracker-sync's other commands need not wait for rich and requests.
    from tracker.demo.story import run

    sys.exit(run(keep=keep))


if __name__ == "__main__":
    demo(prog_name="tracker-sync demo")
