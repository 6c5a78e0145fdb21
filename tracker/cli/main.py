"""``tracker-sync``: the command line for an outbox."""

from __future__ import annotations

import click

from tracker import program
from tracker._version import __version__
from tracker.cli import warnings
from tracker.cli.command import Commands, place_options

_LAZY = {
    "flush": "tracker.cli.flush:flush",
    "outboxes": "tracker.cli.outboxes:outboxes",
    "status": "tracker.cli.status:status",
    "dashboard": "tracker.cli.dashboard:dashboard",
    "list": "tracker.cli.events:list_events",
    "show": "tracker.cli.events:show",
    "tail": "tracker.cli.tail:tail",
    "conversations": "tracker.cli.conversations:conversations",
    "conversation": "tracker.cli.conversations:conversation",
    "spans": "tracker.cli.spans:spans",
    "trace": "tracker.cli.trace:trace",
    "unclosed": "tracker.cli.unclosed:unclosed",
    "metrics": "tracker.cli.metrics:metrics",
    "agents": "tracker.cli.agents:agents",
    "usage": "tracker.cli.usage:usage",
    "scores": "tracker.cli.scores:scores",
    "export": "tracker.cli.export:export",
    "evidence": "tracker.cli.evidence:evidence",
    "stats": "tracker.cli.stats:stats",
    "dead": "tracker.cli.dead:dead",
    "resend": "tracker.cli.resend:resend",
    "erase": "tracker.cli.erase:erase",
    "verify": "tracker.cli.verify:verify",
    "report": "tracker.cli.report:report",
    "doctor": "tracker.cli.doctor:doctor",
    "run": "tracker.cli.run:run",
    "prune": "tracker.cli.maintenance:prune",
    "migrate": "tracker.cli.maintenance:migrate",
    "pack": "tracker.cli.pack:pack",
    "receipts": "tracker.cli.receipts:receipts",
    "rebind": "tracker.cli.maintenance:rebind",
    "backup": "tracker.cli.backup:backup",
    "restore": "tracker.cli.backup:restore",
    "path": "tracker.cli.maintenance:path",
    "config": "tracker.cli.config:config",
    "demo": "tracker.demo.command:demo",
}
_ALIASES = {"events": "list"}
_LOGGING = ("run", "demo")
"""Commands that show the log by their own means."""


def main() -> None:
    """Run the command line and exit: 0 success, 1 failure, 2 wrong use or configuration."""
    program.run(lambda: cli(prog_name="tracker-sync"))


@click.group(
    cls=Commands,
    lazy=_LAZY,
    aliases=_ALIASES,
    params=place_options(),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has its own help, with examples: tracker-sync COMMAND --help.",
)
@click.version_option(__version__, "--version", prog_name="tracker-sync")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Upload the pending events of an outbox, and inspect it.

    Without a command: flush, which uploads pending events and waits for it.

    All commands work while an application is using the outbox. Only `flush`, `run`, `pack`,
    `receipts` and `verify --against-collector` need the API key. It is read from the environment
    variable SDK_API_KEY, or from a file (SDK_API_KEY_FILE, or the one of --config); there is no
    option for it, because other users of the machine can see the arguments of a command.

    The options below may also be given after the command's name.

    Shell completion, for bash (for zsh with zsh_source) and for fish:

        eval "$(_TRACKER_SYNC_COMPLETE=bash_source tracker-sync)"
        _TRACKER_SYNC_COMPLETE=fish_source tracker-sync | source

    Exit codes: 0 success, or nothing is pending; 1 failure; 2 wrong use or configuration.
    """
    if ctx.invoked_subcommand not in _LOGGING:
        ctx.with_resource(warnings.on_stderr())
    if ctx.invoked_subcommand is None:
        from tracker.cli.flush import flush

        ctx.invoke(flush)


if __name__ == "__main__":
    main()
