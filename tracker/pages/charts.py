"""Charts as SVG, drawn on the server.

Their colours are classes of the style sheet, so print, dark mode and forced colours need nothing
else, and no browser has to run or load anything for them.

All text in them is escaped by ``Markup.format``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from tracker.pages.shown import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDTH, HEIGHT = 520, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 8, 10, 24
_ROOM, _DEPTH = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_MOST_LABELS = 7
_MOST_ROWS = 6
_ROW = 26
_MOST_HOLES = 300
_LEAST, _MOST = 1e-300, 1e300
"""What is smaller is drawn as nothing, and what is larger as this: an event may say any number, and
near the ends of what a float can hold no round one is above it."""
_LEAST_SHARE = 6
"""Of 1,000: what a part of a bar has at least, so that a single event of a million is seen."""


@dataclass(frozen=True)
class Series:
    """Values that belong together.

    Attributes:
        name: What they are.
        kind: The class of their colour.
        values: One for each label of the chart; None where nothing is known.
    """

    name: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Share:
    """A part of a bar: what it is, the class of its colour, and how much of it there is."""

    name: str
    kind: str
    amount: int


def stacked(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    told: Callable[[float], str],
    axis: Callable[[float], str],
) -> Markup:
    """Return a chart of columns, in which the series stand on each other.

    Args:
        title: What it shows, in a sentence.
        labels: One for each column.
        series: The values.
        told: Says a value.
        axis: Says a value of the axis, in some six characters.
    """
    totals = [
        min(sum(each or 0 for each in column), _MOST)
        for column in zip(*(s.values for s in series), strict=True)
    ]
    top = _nice(max(totals, default=0))
    step = _ROOM / max(len(labels), 1)
    width = min(step * 0.7, 34)
    drawn = []
    for place, label in enumerate(labels):
        base = float(_TOP + _DEPTH)
        for each in series:
            value = each.values[place] or 0
            if not value:
                continue
            height = max(min(value, _MOST) / top * _DEPTH, 1)
            base -= height
            drawn.append(
                _rect(
                    each.kind,
                    (_LEFT + place * step + (step - width) / 2, base, width, height),
                    f"{label}: {told(value)} {each.name}",
                )
            )
    return _chart(title, labels, top, axis, drawn)


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    told: Callable[[float], str],
    axis: Callable[[float], str],
) -> Markup:
    """Return a chart of lines; where nothing is known, a line is interrupted.

    It takes the same as `stacked`.
    """
    known = [min(value, _MOST) for each in series for value in each.values if value is not None]
    top = _nice(max(known, default=0))
    step = _ROOM / max(len(labels), 1)
    drawn = []
    for each in series:
        points = [
            None if value is None else (_LEFT + (place + 0.5) * step, _y(value, top))
            for place, value in enumerate(each.values)
        ]
        drawn.append(Markup('<path class="line {}" d="{}"/>').format(each.kind, _path(points)))
        for place, point in enumerate(points):
            value = each.values[place]
            if point is None or value is None:
                continue
            tip = f"{labels[place]}: {told(value)} {each.name}"
            drawn.append(
                Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.5"><title>{}</title></circle>')
                .format(each.kind, _at(point[0]), _at(point[1]), visible(tip))
            )  # fmt: skip
    return _chart(title, labels, top, axis, drawn)


def rows(title: str, amounts: Sequence[tuple[str, int, str]]) -> Markup:
    """Return a chart of horizontal bars: a name, an amount and the class of a colour for each."""
    most = max((amount for _, amount, _ in amounts), default=0) or 1
    drawn = []
    for place, (name, amount, kind) in enumerate(amounts[:_MOST_ROWS]):
        y = 6 + place * _ROW
        whole = visible(name)
        label = whole if len(whole) <= 22 else whole[:21] + "…"
        width = max(amount / most * (WIDTH - 150 - 64), 2)
        drawn += [
            # In a drawing of its own, which cuts off what is wider than its place.
            Markup('<svg width="144" height="{}" y="{}"><text class="label" y="14">{}<title>{}'
                   "</title></text></svg>").format(_ROW - 4, y, label, whole),
            _rect(kind, (150, y, width, 18), f"{whole}: {amount:,}"),
            Markup('<text class="label" x="{}" y="{}">{}</text>')
            .format(_at(150 + width + 6), y + 14, f"{amount:,}"),
        ]  # fmt: skip
    return _svg(title, 6 + min(len(amounts), _MOST_ROWS) * _ROW, drawn)


def bar(title: str, shares: Sequence[Share]) -> Markup:
    """Return one bar of several parts; a part of a single event is still seen."""
    total = sum(share.amount for share in shares)
    if not total:
        return Markup("")
    widths = [
        max(share.amount / total * 1000, _LEAST_SHARE) if share.amount else 0.0 for share in shares
    ]
    scale = 1000 / sum(widths)
    x, drawn = 0.0, []
    for share, width in zip(shares, widths, strict=True):
        if width:
            tip = f"{share.amount:,} {share.name}"
            drawn.append(_rect(share.kind, (x, 0, width * scale, 14), tip))
            x += width * scale
    return Markup(
        '<svg class="bar" role="img" aria-label="{}" viewBox="0 0 1000 14" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(visible(title), Markup("").join(drawn))


def span(start: float, width: float, kind: str) -> Markup:
    """Return the bar of a span in a trace, as shares of it from 0.0 to 1.0."""
    first = min(max(start, 0.0), 0.995) * 1000
    wide = min(max(width * 1000, 5), 1000 - first)
    return Markup(
        '<svg class="span" aria-hidden="true" viewBox="0 0 1000 10" preserveAspectRatio="none">'
        "{}</svg>"
    ).format(_rect(kind, (first, 0, wide, 10)))


def point(place: float) -> Markup:
    """Return the mark of an event in a trace, at a share of its time from 0.0 to 1.0."""
    return span(place, 0, "point")


def tape(
    title: str,
    highest: int,
    holes: Sequence[tuple[int, int, str, str]],
    known: bool,
) -> Markup:
    """Return the numbers of an outbox as a tape from 1 to the highest, with its holes.

    Args:
        title: What it shows, in a sentence.
        highest: The highest number.
        holes: The first number, the last one, the class of the colour, and what it is in words.
        known: Whether these are all the holes; otherwise nothing else counts as received.
    """
    if highest < 1:
        return Markup("")
    drawn = [_rect("received" if known else "unchecked", (0, 4, 1000, 12))]
    for first, last, kind, words in holes[:_MOST_HOLES]:
        start = (first - 1) / highest * 1000
        wide = max((last - first + 1) / highest * 1000, _LEAST_SHARE)
        drawn.append(_rect("hole", (min(start, 1000 - wide), 4, wide, 12)))
        top, deep = (0, 20) if kind == "missing" else (7, 6)
        drawn.append(_rect(kind, (min(start, 1000 - wide), top, wide, deep), words))
    return Markup(
        '<svg class="tape" role="img" aria-label="{}" viewBox="0 0 1000 20" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(visible(title), Markup("").join(drawn))


def share(amount: float | None, most: float | None, kind: str = "ended") -> Markup:
    """Return a small bar in a table: how much of the greatest amount this one is."""
    part = amount / most if amount and most else 0
    if not part:
        return Markup("")
    return Markup(
        '<svg class="share" aria-hidden="true" viewBox="0 0 100 8" preserveAspectRatio="none">'
        "{}</svg>"
    ).format(_rect(kind, (0, 0, max(part * 100, 1), 8)))


def _chart(
    title: str,
    labels: Sequence[str],
    top: float,
    axis: Callable[[float], str],
    drawn: Iterable[Markup],
) -> Markup:
    frame = []
    for part in (0, 0.5, 1):
        y = _y(top * part, top)
        frame.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text class="label end" x="{}" y="{}">{}'
                   "</text>")
            .format(_LEFT, _at(y), WIDTH - _RIGHT, _LEFT - 7, _at(y + 4), axis(top * part))
        )  # fmt: skip
    step = _ROOM / max(len(labels), 1)
    every = math.ceil(len(labels) / _MOST_LABELS) or 1
    frame += [
        Markup('<text class="label middle{}" x="{}" y="{}">{}</text>').format(
            " other" if count % 2 else "",  # a phone has room for every second one
            _at(_LEFT + (place + 0.5) * step), HEIGHT - 6, visible(labels[place])
        )
        for count, place in enumerate(range(0, len(labels), every))
    ]  # fmt: skip
    return _svg(title, HEIGHT, [*frame, *drawn])


def _svg(title: str, height: float, drawn: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>'
    ).format(visible(title), WIDTH, height, Markup("").join(drawn))


def _rect(kind: str, box: tuple[float, float, float, float], tip: str | None = None) -> Markup:
    said = Markup("") if tip is None else Markup("<title>{}</title>").format(visible(tip))
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>').format(
        kind, *map(_at, box), said
    )


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    drawn, before = [], None
    for point in points:
        if point is not None:
            drawn.append(f"{'M' if before is None else 'L'}{_at(point[0])} {_at(point[1])}")
        before = point
    return "".join(drawn)


def _y(value: float, top: float) -> float:
    return _TOP + _DEPTH * (1 - min(value, _MOST) / top)


def _at(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _nice(value: float) -> float:
    """Return a round number that is not below a value, for the top of an axis."""
    if value < _LEAST:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 5, 8, 10) if power * step >= value * 0.999999)
