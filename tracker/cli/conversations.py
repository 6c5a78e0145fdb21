"""``tracker-sync conversations`` and ``conversation``: lists and contents of conversations."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from tracker import canonical
from tracker.cli.command import Command, Place
from tracker.cli.context import existing, find, opened_to_read
from tracker.cli.events import limit_option
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    counted,
    csv_option,
    duration,
    echo_csv,
    echo_json,
    json_option,
    moment,
    print_table,
    printable,
    printable_lines,
)
from tracker.cli.scores import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.outbox import StoredEvent
    from tracker.queries.conversations import Conversation
    from tracker.queries.history import HistoryEntry, ToolCall
    from tracker.queries.scores import Score

_HEADINGS = ("began", "status", "messages", "tools", "tokens", "quality", "agent", "session")
_SPARE = ("quality", "tools", "tokens", "messages", "began", "agent", "status")
_COLOURS = {"user": "green", "agent": "cyan", "system": "magenta", "tool": "yellow"}
_INDENT = "    "


@click.command(
    cls=Command,
    examples=[
        "tracker-sync conversations",
        "tracker-sync conversations --status failed --since 7d",
        "tracker-sync conversations --agent support-bot --limit 0 --csv > conversations.csv",
    ],
    exits={0: "listed, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--status",
    type=click.Choice(["open", "ended", "failed"]),
    help="Only those that are open, ended or failed.",
)
@filter_options
@limit_option
@json_option
@csv_option
@click.pass_obj
def conversations(
    place: Place,
    status: str | None,
    limit: int,
    *,
    wanted: Given,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List conversations, the one that started last at the end.

    Of a period are those that started in it; the other filters find those with an event that
    matches.

    A conversation failed if a failure was recorded, or if it ended with the outcome "failure",
    "failed" or "error". Only events that are still in the outbox count; see `tracker-sync prune`.
    """
    from tracker.queries.conversations import list_conversations

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found: Sequence[Conversation] = ()
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = list_conversations(connection, wanted.whole(connection), status, limit or None)
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    print_conversations(found, as_json=as_json, as_csv=as_csv)


def print_conversations(found: Sequence[Conversation], *, as_json: bool, as_csv: bool) -> None:
    """Print conversations in the given format."""
    from dataclasses import fields

    from tracker.queries.conversations import Conversation

    if as_json:
        echo_json([vars(conversation) for conversation in found])
    elif as_csv:
        names = [item.name for item in fields(Conversation)]
        echo_csv(names, ([getattr(each, name) for name in names] for each in found))
    elif found:
        print_table(_HEADINGS, map(_cells, found), fixed=6, ids=("session",), spare=_SPARE)
    else:
        click.echo("no such conversations")


def _cells(conversation: Conversation) -> tuple[object, ...]:
    return (
        moment(conversation.started_at_ms),
        conversation.status,
        f"{conversation.messages:,}",
        f"{conversation.tool_calls:,}",
        f"{conversation.tokens_used:,}",
        conversation.quality_score,
        conversation.agent_id,
        conversation.session_id,
    )


@click.command(
    cls=Command,
    examples=[
        "tracker-sync conversation 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11",
        "tracker-sync conversation --last",
        "tracker-sync conversation 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11 --no-content",
        "tracker-sync conversation 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11 --limit 10 --json",
    ],
    exits={0: "shown", 1: "there is no such conversation, or the outbox cannot be read"},
)
@click.argument("session_id", required=False)
@click.option("--last", is_flag=True, help="The conversation that started last.")
@click.option("--no-content", is_flag=True, help="Leave out messages, arguments and results.")
@click.option(
    "--limit",
    type=click.IntRange(min=0, max=2**31),
    default=0,
    metavar="N",
    help="The newest N messages and tool calls. Default: 0, for all.",
)
@json_option
@click.pass_obj
def conversation(
    place: Place,
    session_id: str | None,
    limit: int,
    *,
    last: bool,
    no_content: bool,
    as_json: bool,
) -> None:
    """Show the messages, tool calls and scores of a conversation.

    SESSION_ID is the conversation's id, as printed by `tracker-sync conversations`, or a unique
    beginning of it.
    """
    if last == (session_id is not None):
        raise click.UsageError("give a SESSION_ID, or --last for the one that started last")
    from tracker.events import CONVERSATION_FAILED
    from tracker.outbox import browse
    from tracker.queries.conversations import find_conversation, newest_id
    from tracker.queries.filters import Filters
    from tracker.queries.history import get_conversation_history
    from tracker.queries.scores import list_scores

    with opened_to_read(existing(place)) as outbox, outbox.snapshot() as connection:
        if session_id is None:
            session_id = newest_id(connection) or ""
        session_id = browse.complete(connection, "session_id", session_id)
        whole = find_conversation(connection, session_id)
        if whole is None:
            raise click.ClickException(
                f"there is no conversation {printable(session_id)} in {outbox.path}; if it was "
                "delivered, it may have been pruned"
            )
        history = get_conversation_history(connection, session_id, not no_content, limit or None)
        scores = list_scores(connection, session_id, include_comments=not no_content)
        failed = Filters(session_id=session_id, type=CONVERSATION_FAILED)
        failure = next(
            browse.select(connection, browse.Condition(*failed.sql(connection)), 1), None
        )
    told = {} if failure is None or whole.status != "failed" else _failure(failure)
    if as_json:
        echo_json(
            {
                **vars(whole),
                "failure": None if no_content or not told else told,
                "history": [_as_dict(entry) for entry in history],
                "scores": [vars(score) for score in scores],
            }
        )
        return
    _print_heading(whole)
    for entry in history:
        _print_entry(entry, content=not no_content)
    shown = {score.event_id for entry in history for score in entry.scores}
    for score in scores:
        if score.event_id not in shown:
            _print_score(score)
    if failure is not None and whole.status == "failed" and not no_content:
        _print_failure(failure.timestamp_ms, told)


def _as_dict(entry: HistoryEntry) -> dict[str, Any]:
    call = entry.tool_call
    return {
        **vars(entry),
        "tool_call": None if call is None else vars(call),
        "scores": [vars(score) for score in entry.scores],
    }


def _print_heading(whole: Conversation) -> None:
    who = f"{whole.agent_id or 'unknown agent'} and {whole.user_id or 'unknown user'}"
    said = [
        whole.status,
        *([f"outcome {whole.outcome}"] if whole.outcome else []),
        *([f"quality {whole.quality_score:g}"] if whole.quality_score is not None else []),
        counted(whole.messages, "message"),
        counted(whole.tool_calls, "tool call"),
        counted(whole.tokens_used, "token"),
    ]
    first: object = whole.started_at_ms
    last: object = whole.last_at_ms
    if isinstance(first, int) and isinstance(last, int):  # a damaged row holds any type
        said.append(duration(max(last - first, 0) / 1000))
    click.secho(printable(f"{whole.session_id}: {who}"), bold=True)
    click.echo(f"{moment(first)}  {printable(', '.join(said))}")


def _print_entry(entry: HistoryEntry, *, content: bool) -> None:
    facts = [moment(entry.timestamp_ms)]
    if entry.response_time_ms is not None:
        facts.append(f"{entry.response_time_ms:,.0f} ms")
    if entry.tokens_used is not None:
        facts.append(counted(entry.tokens_used, "token"))
    if entry.model is not None:
        facts.append(entry.model)
    if entry.tool_call is not None and entry.tool_call.duration_ms is not None:
        facts.append(f"{entry.tool_call.duration_ms:,.0f} ms")
    role = entry.role or "unknown"
    name = "" if entry.tool_call is None else f" {entry.tool_call.name or 'unknown'}"
    # click leaves out colours if stdout is not a terminal.
    if entry.prompt is not None:
        click.echo()
        click.secho("user", fg=_COLOURS.get("user"), bold=True)
        _print_text(entry.prompt)
    click.echo()
    click.secho(printable(role + name), fg=_COLOURS.get(role), bold=True, nl=False)
    click.secho(f"  {printable('  '.join(facts))}", dim=True)
    if entry.erased:
        _print_text("(erased)")
    elif entry.tool_call is not None and content:
        _print_tool_call(entry.tool_call)
    elif entry.content is not None:
        _print_text(entry.content)
    for score in entry.scores:
        _print_text(line(score), dim=True)


def _print_score(score: Score) -> None:
    click.echo()
    click.secho(printable(line(score)), bold=True, nl=False)
    click.secho(f"  {moment(score.timestamp_ms)}", dim=True)


def _print_tool_call(call: ToolCall) -> None:
    _print_text(json.dumps(call.arguments, ensure_ascii=False))
    if call.result is not None:
        result = call.result
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        _print_text(f"→ {text}")
    if call.error is not None:
        _print_text(f"failed: {call.error}", fg="red")


def _failure(event: StoredEvent) -> dict[str, str]:
    """Return why a conversation failed, as far as the row can be read; nothing if it was erased."""
    try:
        data = canonical.decode(event.data)
        names = ("error_type", "error_message", "traceback")
        return {name: str(data[name]) for name in names if name in data}
    except (ValueError, TypeError):  # not JSON, or not an object
        return {}


def _print_failure(when: object, told: dict[str, str]) -> None:
    click.echo()
    click.secho("failed", fg="red", bold=True, nl=False)
    click.secho(f"  {moment(when)}", dim=True)
    said = [told[name] for name in ("error_type", "error_message") if name in told]
    if said:
        _print_text(": ".join(said), fg="red")
    if "traceback" in told:
        _print_text(told["traceback"])


def _print_text(text: str, **style: Any) -> None:
    lines = printable_lines(text).split("\n")
    if sys.stdout.isatty():  # a terminal would break words and lose the indentation
        lines = [part for line in lines for part in _wrapped(line)]
    click.secho("\n".join(f"{_INDENT}{line}".rstrip() for line in lines), **style)


def _wrapped(line: str) -> list[str]:
    width = max(shutil.get_terminal_size().columns - len(_INDENT), 20)
    return textwrap.wrap(line, width, replace_whitespace=False, break_on_hyphens=False) or [""]
