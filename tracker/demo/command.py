"""``tracker-sync demo``: shows the main promise in a few seconds, with real processes."""

from __future__ import annotations

import importlib.util
import sys

import click

_EXTRA_MISSING = (
    "tracker-sync demo starts a collector, which needs an extra: "
    "pip install 'agent-tracking-sdk[collector]'"
)
_PAGES_MISSING = (
    "--dashboard shows pages, which need an extra: pip install 'agent-tracking-sdk[dashboard]'"
)


@click.command()
@click.option("--keep", is_flag=True, help="Keep the data for inspection.")
@click.option(
    "--dashboard",
    is_flag=True,
    help="Look at what was logged in the browser afterwards, until Ctrl-C; keeps the data.",
)
def demo(keep: bool, dashboard: bool) -> None:
    """Show with real processes that no acknowledged event is lost.

    An agent logs conversations while its collector is down, and is killed with SIGKILL in the
    middle of one. Then both are restarted, and the received events are compared with the
    acknowledged ones. All of this happens on this machine, in a temporary folder. Exit codes: 0 if
    all checks hold, 1 if not, 2 if the extra [collector] is missing, or [dashboard] for that.
    """
    if _misses("fastapi", "uvicorn"):
        click.echo(_EXTRA_MISSING, err=True)
        sys.exit(2)
    if dashboard and _misses("jinja2", "starlette"):
        click.echo(_PAGES_MISSING, err=True)
        sys.exit(2)
    # Imported here, so that other commands of tracker-sync do not load rich and requests.
    from tracker.demo.story import run

    sys.exit(run(keep=keep or dashboard, dashboard=dashboard))


def _misses(*modules: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in modules)


if __name__ == "__main__":
    demo(prog_name="tracker-sync demo")
