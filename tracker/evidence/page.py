"""What HTML pages for people share: one style, no scripts, nothing from outside, all escaped."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timezone
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.2em .5em;"
    "text-align:left;vertical-align:top}pre,.d{font:13px monospace;white-space:pre-wrap}"
    "td:last-child{overflow-wrap:anywhere}@page{margin:15mm}@media print{body{font-size:11px;"
    "max-width:none;margin:0;padding:0}tr{break-inside:avoid}thead{display:table-header-group}"
    "pre,.d{font-size:9px}}"
)
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


def document(title: str, body: Iterable[str]) -> str:
    """Return a page with a title as its heading; `body` is HTML, whose texts are escaped."""
    name = text(title)
    return "".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{name}</title><style>{_STYLE}</style></head><body><h1>{name}</h1>",
            *body,
            "</body></html>\n",
        )
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values."""
    rows = "".join(f'<tr><th>{text(name)}<td class="d">{text(said)}' for name, said in pairs)
    return f"<table>{rows}</table>"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table, whose headings stand on each printed page."""
    head = "".join(f"<th>{text(name)}" for name in headings)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}" for cell in cells) for cells in rows)
    return f'<table class="d"><thead><tr>{head}<tbody>{body}</table>'


def items(texts: Iterable[str]) -> str:
    """Return a list."""
    return "<ul>" + "".join(f"<li>{text(each)}</li>" for each in texts) + "</ul>"


def time(milliseconds: object) -> str:
    """Return a time in UTC, or the number as it is if no calendar has such a time."""
    try:
        at = datetime.fromtimestamp(int(str(milliseconds)) / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
    return at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def text(value: str) -> str:
    """Return text for HTML, without characters that turn or hide others."""
    return escape("".join(each if each.isprintable() else ascii(each)[1:-1] for each in value))
