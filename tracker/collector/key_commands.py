"""``tracker-collector keys``: create, list, rotate and revoke API keys, and show what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tracker.collector import key_file
from tracker.collector.dates import date_text
from tracker.collector.key_changes import recorded
from tracker.collector.key_file import KeyFileError
from tracker.collector.key_times import DAY_MS, MOST_DAYS, Expiry, Overlap, now_ms
from tracker.collector.keys import ApiKey, Keys, Terms, check_client_id, new_key
from tracker.collector.options import database_option, opened
from tracker.collector.scopes import SCOPES, default_scopes
from tracker.errors import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_KEY_ID = click.IntRange(1, 2**63 - 1)
_LINES = 1_000
"""Number of lines printed at once."""


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys."""


def _expiry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    when = click.option(
        "--expires",
        "expires_at_ms",
        type=Expiry(),
        metavar="WHEN",
        help="Refuse the key from this time on, such as 2027-11-01 or 2027-11-01T12:00Z.",
    )
    days = click.option(
        "--days",
        type=click.IntRange(1, MOST_DAYS),
        metavar="N",
        help="Refuse the key after so many days.",
    )
    return when(days(command))


@keys.command("create")
@click.option("--client", "client_id", help="The client that the key belongs to.")
@click.option(
    "--clients",
    "list_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Create a key for each client in a file, one id a line; - is standard input. Prints CSV.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --clients: the new file for the CSV, which appears when all keys are valid. If "
    "this is interrupted, the same command goes on.",
)
@click.option(
    "--operator", is_flag=True, help="A key that reads the events of all clients and sends none."
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What the key may do; repeatable.  [default: send and read for a client's key, operate "
    "for an operator's]",
)
@_expiry_options
@click.option("--label", help="A label for the key.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def create_key(
    client_id: str | None,
    list_file: IO[bytes] | None,
    output: Path | None,
    scopes: tuple[str, ...],
    expires_at_ms: int | None,
    days: int | None,
    label: str | None,
    database: str,
    *,
    operator: bool,
    as_json: bool,
) -> None:
    """Create a key and print it. It is shown only once; only its hash is stored."""
    if [operator, client_id is not None, list_file is not None].count(True) != 1:
        raise click.UsageError("give either --client CLIENT_ID or --operator, or --clients FILE")
    terms = Terms(label, _expiry(expires_at_ms, days), scopes)
    if list_file is not None:
        if as_json:
            raise click.UsageError("--clients prints CSV; leave --json out")
        _create_many(_clients_in(list_file), output, terms, database)
        return
    if output is not None:
        raise click.UsageError("--output is for --clients")
    if client_id is not None:
        _check_client(client_id)
    with opened(database) as store:
        try:
            key, made = Keys(store).create(client_id, terms=terms)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    _print_new(key, made, as_json=as_json)


def _create_many(clients: Sequence[str], output: Path | None, terms: Terms, database: str) -> None:
    """Create keys, and convert what is wrong with files to one line."""
    with opened(database) as store:
        try:
            if output is None:
                _print_many(Keys(store), clients, terms)
                return
            key_file.make_file(Keys(store), clients, terms, output)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        except KeyFileError as error:
            raise click.ClickException(str(error)) from error
        except FileExistsError as error:
            raise click.ClickException(f"{error.filename} exists; give another name") from error
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(readable(f"{named}{error.strerror or error}")) from error
    click.echo(f"{len(clients):,} keys, shown in {output} and nowhere else", err=True)


def _print_many(made: Keys, clients: Sequence[str], terms: Terms) -> None:
    """Print keys as soon as they are stored; revoke those that could not be printed."""
    click.echo(",".join(key_file.FIELDS))
    for part in key_file.slices(clients):
        new = {client_id: new_key() for client_id in part}
        ids = made.add(new, terms)
        try:
            click.echo(key_file.as_text(ids, new), nl=False)
        except OSError:
            made.revoke_all(ids.values())
            raise


def _clients_in(file: IO[bytes]) -> list[str]:
    try:
        return key_file.read_clients(file.read().decode("utf-8-sig").split("\n"))
    except UnicodeDecodeError as error:
        raise click.BadParameter("it is not UTF-8", param_hint="--clients") from error
    except KeyFileError as error:
        raise click.BadParameter(str(error), param_hint="--clients") from error


@keys.command("list")
@click.option("--client", "client_id", help="Only the keys of this client.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@database_option
def list_keys(client_id: str | None, database: str, *, as_json: bool) -> None:
    """List the id, client and dates of all keys, never the keys."""
    with opened(database) as store:
        found = Keys(store).each(client_id)
        if as_json:
            _print_array(_as_dict(key, used) for key, used in found)
        else:
            _print_lines(_line(key, used) for key, used in found)


@keys.command("rotate")
@click.argument("key_id", type=_KEY_ID, required=False)
@click.option("--client", "client_id", help="Rotate the one valid key of this client.")
@click.option(
    "--overlap",
    "overlap_ms",
    type=Overlap(),
    default="7d",
    show_default=True,
    metavar="DURATION",
    help="How long the former key stays valid, such as 12h or 7d.",
)
@_expiry_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def rotate_key(
    key_id: int | None,
    client_id: str | None,
    overlap_ms: int,
    expires_at_ms: int | None,
    days: int | None,
    database: str,
    *,
    as_json: bool,
) -> None:
    """Create a key like this one, which expires after an overlap, and print the new one."""
    if (key_id is None) == (client_id is None):
        raise click.UsageError("give either the id of a key or --client CLIENT_ID")
    with opened(database) as store:
        known = Keys(store)
        former = _only_key(known, client_id) if key_id is None else key_id
        try:
            key, made, ends = known.rotate(former, overlap_ms, _expiry(expires_at_ms, days))
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({**_as_dict(made), "replaces": former, "overlap_ends_at_ms": ends,
                               "key": key}))  # fmt: skip
        return
    _print_new(key, made, as_json=False)
    click.echo(f"key {former} expires at {date_text(ends)}", err=True)


@keys.command("revoke")
@click.argument("key_ids", type=_KEY_ID, nargs=-1, required=True, metavar="KEY_ID...")
@database_option
def revoke_keys(key_ids: tuple[int, ...], database: str) -> None:
    """Refuse the keys with these ids from now on."""
    with opened(database) as store:
        revoked = Keys(store).revoke_all(key_ids)
    for key_id in revoked:
        click.echo(f"key {key_id} is revoked")
    others = [str(key_id) for key_id in sorted(set(key_ids) - set(revoked))]
    if others:
        raise click.ClickException(f"there is no valid key with the id {', '.join(others)}")


@keys.command("audit")
@click.option("--client", "client_id", help="Only the keys of this client.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@database_option
def show_changes(client_id: str | None, database: str, *, as_json: bool) -> None:
    """Print every change of a key: when it was, who made it, and never a key."""
    with opened(database) as store:
        changes = recorded(store, client_id)
        if as_json:
            _print_array(change._asdict() for change in changes)
        else:
            _print_lines(
                f"{date_text(change.changed_at_ms)}  {change.changed_by}  {change.change}  "
                f"{change.key_id}  {_holder(change.client_id)}"
                + (f"  {change.detail}" if change.detail else "")
                for change in changes
            )


def _expiry(expires_at_ms: int | None, days: int | None) -> int | None:
    if days is None:
        return expires_at_ms
    if expires_at_ms is not None:
        raise click.UsageError("give either --expires or --days")
    return now_ms() + days * DAY_MS


def _check_client(client_id: str) -> None:
    try:
        check_client_id(client_id)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--client") from error


def _only_key(known: Keys, client_id: str | None) -> int:
    valid = [key.id for key, _ in known.each(client_id) if key.is_valid()]
    if len(valid) != 1:
        have = f"has the valid keys {', '.join(map(str, valid))}" if valid else "has no valid key"
        raise click.ClickException(f"{client_id} {have}; give the id of one")
    return valid[0]


def _print_new(key: str, made: ApiKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_as_dict(made), "key": key}))
        return
    click.echo(key)
    click.echo(f"key {made.id} for {_holder(made.client_id)}; it is not shown again", err=True)


def _print_array(objects: Iterable[dict[str, Any]]) -> None:
    """Print a JSON array without having it in memory."""
    between = "["
    part: list[str] = []
    for each in objects:
        part.append(between + json.dumps(each))
        between = ", "
        if len(part) == _LINES:
            click.echo("".join(part), nl=False)
            part.clear()
    click.echo("".join(part) + ("[]" if between == "[" else "]"))


def _print_lines(lines: Iterable[str]) -> None:
    part: list[str] = []
    for line in lines:
        part.append(f"{line}\n")
        if len(part) == _LINES:
            click.echo("".join(part), nl=False)
            part.clear()
    click.echo("".join(part), nl=False)


def _line(key: ApiKey, used_at_ms: int | None) -> str:
    parts = [str(key.id), _holder(key.client_id), f"created {date_text(key.created_at_ms)}"]
    if key.revoked_at_ms is not None:
        parts.append(f"revoked {date_text(key.revoked_at_ms)}")
    elif key.expires_at_ms is not None:
        word = "expired" if key.has_expired() else "expires"
        parts.append(f"{word} {date_text(key.expires_at_ms)}")
    else:
        parts.append("valid")
    if key.scopes != default_scopes(operator=key.operator):
        parts.append(f"only {', '.join(key.scopes) or 'nothing'}")
    if used_at_ms is not None:
        parts.append(f"used {date_text(used_at_ms)}")
    return "  ".join([*parts, *([key.label] if key.label else [])])


def _as_dict(key: ApiKey, used_at_ms: int | None = None) -> dict[str, Any]:
    return {
        "id": key.id,
        "client_id": key.client_id,
        "operator": key.operator,
        "label": key.label,
        "created_at_ms": key.created_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "scopes": key.scopes,
        "last_used_at_ms": used_at_ms,
    }


def _holder(client_id: str | None) -> str:
    return "(operator)" if client_id is None else client_id
