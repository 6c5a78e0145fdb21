"""The filters that every command takes that lists or sums events."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from tracker.since import Since

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.queries.filters import Filters


class Text(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A text that can be stored, and so compared with what is."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not UTF-8, as every stored text is", param, ctx)
        return text


class Tag(click.ParamType):  # type: ignore[type-arg]  # as above
    """A tag and its value: ``site=oslo``."""

    name = "tag"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Parse the text."""
        tag, equals, text = Text().convert(value, param, ctx).partition("=")
        if not (tag and equals):
            self.fail(
                f"{value!r} is not a tag; give a name and a value, as in site=oslo", param, ctx
            )
        return tag, text


_OPTIONS = (
    click.option(
        "--since",
        "since_ms",
        type=Since(),
        metavar="WHEN",
        help="Only from then on: 2026-11-01, 2026-11-01T12:00 (local time), "
        "2026-11-01T12:00+01:00, or 30m, 2h, 7d ago.",
    ),
    click.option("--until", "until_ms", type=Since(), metavar="WHEN", help="Only before then."),
    click.option("--agent", "agent_id", type=Text(), metavar="ID", help="Only this agent."),
    click.option("--user", "user_id", type=Text(), metavar="ID", help="Only this user."),
    click.option(
        "--session",
        "session_id",
        type=Text(),
        metavar="ID",
        help="Only this conversation; a unique beginning of its id is enough.",
    ),
    click.option("--last", is_flag=True, help="Only the conversation that started last."),
    click.option(
        "--run",
        "run_id",
        type=Text(),
        metavar="ID",
        help="Only conversations of this run; as for --session.",
    ),
    click.option(
        "--type",
        type=Text(),
        metavar="TYPE",
        help="Only events of this type, such as message.logged or conversation.*",
    ),
    click.option("--environment", type=Text(), metavar="NAME", help="Only what was logged in it."),
    click.option("--release", type=Text(), metavar="NAME", help="Only what was logged by it."),
    click.option(
        "--tag",
        "tags",
        type=Tag(),
        multiple=True,
        metavar="NAME=VALUE",
        help="Only what was logged with this tag. Can be repeated.",
    ),
)


@dataclass(frozen=True)
class Given:
    """Filters as the command line gives them.

    Attributes:
        filters: The filters; the ids of a conversation and a run may be beginnings.
        last: Whether only the conversation that started last is meant.
    """

    filters: Filters
    last: bool = False

    def whole(self, connection: Connection) -> Filters:
        """Return the filters with complete ids.

        Raises:
            AmbiguousError: if several ids begin as the given one.
        """
        from tracker.outbox import browse
        from tracker.queries.conversations import newest_id

        session_id, run_id = self.filters.session_id, self.filters.run_id
        if self.last:  # if there is none, no event has this id
            session_id = newest_id(connection) or ""
        elif session_id is not None:
            session_id = browse.complete(connection, "session_id", session_id)
        if run_id is not None:
            run_id = browse.complete(connection, "run_id", run_id)
        return replace(self.filters, session_id=session_id, run_id=run_id)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that filter events to a command, as its argument `wanted`, a `Given`."""

    @functools.wraps(command)
    def with_filters(
        *args: Any,
        since_ms: int | None,
        until_ms: int | None,
        agent_id: str | None,
        user_id: str | None,
        session_id: str | None,
        last: bool,
        run_id: str | None,
        type: str | None,
        environment: str | None,
        release: str | None,
        tags: tuple[tuple[str, str], ...],
        **kwargs: Any,
    ) -> Any:
        from tracker.queries.filters import Filters

        if last and session_id is not None:
            raise click.UsageError("give --session or --last, not both")
        if since_ms is not None and until_ms is not None and since_ms > until_ms:
            raise click.UsageError("--until is before --since")
        filters = Filters(
            *(since_ms, until_ms, agent_id, user_id, session_id, run_id, type),
            *(environment, release, tags),
        )
        return command(*args, wanted=Given(filters, last), **kwargs)

    for option in reversed(_OPTIONS):
        option(with_filters)
    return with_filters
