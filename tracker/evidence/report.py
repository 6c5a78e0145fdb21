"""The page of a bundle that a person reads; it shows the events and proves nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.evidence import page
from tracker.evidence.verifier import (
    COSIGNATURE,
    Checkpoint,
    canonical,
    parse_checkpoint,
    read_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker.evidence.contents import Contents

NAME = "report.html"
_HEADINGS = ("seq", "time (UTC)", "type", "agent", "session", "user", "data")
_LIMITS = (
    "The proof is of what was recorded, not that what was recorded is true.",
    "Times of events are those of the device's clock; only the latest time is somebody else's.",
    "Until somebody else saw a head over an event, the holder of device and key could rewrite it.",
    "A witness that belongs to the same organisation as the device is no independent one.",
)


def render(
    contents: Contents,
    head: Checkpoint,
    lines: Sequence[Mapping[str, Any]],
    explaining: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page as HTML without scripts and without links; everything in it is escaped.

    Args:
        contents: What goes into the bundle.
        head: Its head.
        lines: The events as they stand in the bundle.
        explaining: The events that explain others, likewise.
    """
    kinds = [read_event(line).kind for line in lines]
    signed = list(_signers(contents))
    facts = [
        ("Outbox", head.origin),
        ("Selected", _selection(contents.selection)),
        ("Events", _counts(kinds)),
        ("Recorded (device's clock, UTC)", _span(lines)),
        ("Head", f"{head.size} events, root {head.root.hex()}"),
        *(("Signed by", each) for each in signed),
        *(("Key", str(key)) for key in contents.keys),
    ]
    further = f"<h2>Events that explain others</h2>{_events(explaining)}" if explaining else ""
    return page.document(
        "Evidence",
        (
            "<p>This page shows the events of the bundle for reading. What proves them is the ",
            "check below, which reads the other files.</p>",
            page.facts(facts),
            "<h2>Check it</h2><pre>python verifier.py bundle.zip --key KEY --witness KEY</pre>",
            "<p>Take the keys from those who hold them or from an earlier record, never from this ",
            "bundle, and compare them with those above. The check needs Python 3.10 and nothing ",
            "else. If it says PROVEN, then:</p>",
            page.items(_claims(contents, head, kinds)),
            "<h2>What it does not show</h2>",
            page.items([*_LIMITS, *_gaps(contents, kinds)]),
            f"<h2>Events</h2>{_events(lines)}{further}",
        ),
    )


def _claims(contents: Contents, head: Checkpoint, kinds: Sequence[str]) -> Iterable[str]:
    yield (
        "The holder of the device's key (or of the API key, if only a witness signed) recorded the "
        "events below, and nothing in them was changed since."
    )
    yield (
        "They existed at the time at which a witness signed, or at which a time stamp was made, as "
        "the check says it."
    )
    yield f"Their numbers, out of {head.size}, tell the order in which they were recorded."
    if contents.complete:
        yield "No number between the first and the last of them is left out."
    if "erased" in kinds:
        yield "The contents of those that are erased are gone, and cannot be guessed from the rest."


def _events(lines: Sequence[Mapping[str, Any]]) -> str:
    return page.table(_HEADINGS, (_cells(line) for line in lines if "type" in line))


def _cells(line: Mapping[str, Any]) -> list[str]:
    erased = line.get("data") == {"erased": True}
    user = "erased" if erased else _shown(line.get("user_id", "withheld"))
    data = canonical(line["data"]).decode() if "data" in line else "withheld"
    return [
        str(line["seq"]),
        page.time(line["timestamp_ms"]),
        *(_shown(line[name]) for name in ("type", "agent_id", "session_id")),
        user,
        "erased" if erased else data,
    ]


def _selection(selection: Mapping[str, Any]) -> str:
    if "session_id" in selection:
        return f"session {_shown(selection['session_id'])}"
    if "first_seq" in selection:
        return f"seq {selection['first_seq']} to {selection['last_seq']}"
    ends = [
        "" if selection[name] is None else f"{word} {page.time(selection[name])}"
        for name, word in (("since_ms", "from"), ("until_ms", "to before"))
    ]
    return " ".join(each for each in ends if each) or "all"


def _counts(kinds: Sequence[str]) -> str:
    words = {
        "whole": "with their content",
        "withheld": "with a part withheld",
        "erased": "erased",
        "unchecked": "erased, of which only the digest is proven",
        "digest": "as digests only",
    }
    return ", ".join(f"{kinds.count(kind)} {said}" for kind, said in words.items() if kind in kinds)


def _span(lines: Sequence[Mapping[str, Any]]) -> str:
    times = [line["timestamp_ms"] for line in lines if "timestamp_ms" in line]
    return f"{page.time(min(times))} to {page.time(max(times))}" if times else "none is shown"


def _signers(contents: Contents) -> Iterable[str]:
    """Return who is named as a signer of the head; nothing of it is verified here."""
    times = {key.id: key.type for key in contents.keys}
    for signature in parse_checkpoint(contents.head.note.encode()).note.signatures:
        said = f"{signature.name}, key id {signature.key_id.hex()}"
        if times.get(signature.key_id) == COSIGNATURE or len(signature.value) == 72:
            said += f", at {page.time(1000 * int.from_bytes(signature.value[:8], 'big'))}"
        yield said


def _gaps(contents: Contents, kinds: Sequence[str]) -> Iterable[str]:
    if "digest" in kinds:
        yield (
            f"{kinds.count('digest')} events stand here as digests only: nobody can see from them "
            "to which session they belong, or what they say."
        )
    elif not contents.complete:
        yield "Whether further events of this kind were recorded: completeness is not claimed."


def _shown(value: object) -> str:
    return "" if value is None else str(value)
