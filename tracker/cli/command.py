"""Common parts of `tracker-sync` commands: options, help with examples, errors, exit codes."""

from __future__ import annotations

import difflib
import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.docstring import docstring
from tracker.errors import ConfigurationError, OutboxDamagedError, TrackerError, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OK = 0
FAILED = 1
WRONG_USE = 2

_REMEDY = (
    ". An application that uses it, or `tracker-sync flush`, salvages what can be read and "
    "keeps the damaged files"
)
"""What to do about a damaged outbox: commands that only read leave it as it is."""


@dataclass
class Place:
    """The outbox that the command line names, and where to find further settings, as far as given.

    What is not given may be in the environment or in the configuration file. No option gives the
    protocol: it comes with the base URL of an outbox.
    """

    config: str | None = None
    outbox: str | None = None
    base_url: str | None = None
    client_id: str | None = None
    ca_bundle: str | None = None
    protocol: str | None = None


class WrongConfiguration(click.ClickException):
    """Ends the command with one line on stderr and exit code 2; `ClickException` means 1."""

    exit_code = WRONG_USE


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Report which extra to install if an import in the block fails.

    Raises:
        WrongConfiguration: if the imported package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise WrongConfiguration(
            f"{error}; install the extra: pip install 'agent-tracking-sdk[{name}]'"
        ) from error


class Command(click.Command):
    """A command with the common options, whose help ends with examples.

    Args:
        examples: Command lines that work unchanged.
        exits: Meaning of each exit code; that of 2 is added.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str], exits: Mapping[int, str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.exits = {**exits, WRONG_USE: exits.get(WRONG_USE, "wrong use or configuration")}
        self.params.extend(place_options(hidden=True))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit codes."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), self.exits[code]) for code in sorted(self.exits)])
        super().format_epilog(ctx, formatter)


class Commands(click.Group):
    """A group that imports its commands on use, and prints expected errors in one line.

    Args:
        lazy: Location of each command, as ``"module:name"``.
        aliases: Further names of commands, which are not listed.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._aliases = dict(aliases or {})
        self.help = self.help or docstring(self.callback)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the given order."""
        return [*self._lazy, *(name for name in self.commands if name not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; import it if necessary."""
        cmd_name = self._aliases.get(cmd_name, cmd_name)
        if cmd_name in self._lazy and cmd_name not in self.commands:
            module, name = self._lazy[cmd_name].split(":")
            self.add_command(getattr(importlib.import_module(module), name), cmd_name)
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.help = command.help or docstring(command.callback)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the named command.

        Raises:
            UsageError: if there is none; the message suggests similar names.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            alike = difflib.get_close_matches(name, self.list_commands(ctx), cutoff=0.5)
            said = f" Did you mean {' or '.join(alike)}?" if alike else ""
            ctx.fail(f"No such command {name!r}.{said}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; convert expected errors to one line each.

        Raises:
            ClickException: with exit code 2 for wrong configuration, 1 for a file error.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return super().invoke(ctx)
        except TrackerError as error:
            wrong = isinstance(error, ConfigurationError)
            kind = WrongConfiguration if wrong else click.ClickException
            said = str(error)
            if isinstance(error, OutboxDamagedError) and "salvages" not in said:
                said += _REMEDY
            raise kind(said) from error
        except UnicodeEncodeError as error:
            raise WrongConfiguration(
                "an argument or a setting has bytes that are not UTF-8: "
                f"{readable(error.object)[:200]}"
            ) from error
        except SQLAlchemyError as error:  # a row that every outbox has was deleted
            raise click.ClickException(f"the outbox is damaged: {error}{_REMEDY}") from error
        except BrokenPipeError:  # `tracker-sync list | head`: click ends quietly
            raise
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(readable(f"{named}{error.strerror or error}")) from error


def place_options(*, hidden: bool = False) -> list[click.Option]:
    """Return the options that name the outbox.

    The group has them; every command has them as well, hidden, so that they can be given after its
    name. Their variables are read with those of all other settings.
    """
    return [
        _place_option(
            "config",
            "FILE",
            "SDK_CONFIG_FILE",
            "Settings of the application, a TOML file.",
            hidden=hidden,
        ),
        _place_option(
            "outbox",
            "PATH",
            "SDK_OUTBOX_PATH",
            "The outbox file. Default: the one for this base URL and client id in the user's data "
            "folder.",
            hidden=hidden,
        ),
        _place_option(
            "base_url",
            "URL",
            "SDK_BASE_URL",
            "The collector. Default: that of the given outbox file.",
            hidden=hidden,
        ),
        _place_option(
            "client_id",
            "ID",
            "SDK_CLIENT_ID",
            "The client. Default: that of the given outbox file, or the one stored beside it.",
            hidden=hidden,
        ),
        _place_option(
            "ca_bundle",
            "FILE",
            "SDK_CA_BUNDLE",
            "Additional CA certificates to trust, a PEM file.",
            hidden=hidden,
        ),
    ]


def _place_option(
    name: str, metavar: str, variable: str, text: str, *, hidden: bool
) -> click.Option:
    def remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        place = ctx.ensure_object(Place)
        if value is not None:
            setattr(place, name, value)

    return click.Option(
        ["--" + name.replace("_", "-")],
        metavar=metavar,
        expose_value=False,
        callback=remember,
        hidden=hidden,
        help=f"{text}  [env var: {variable}]",
    )
