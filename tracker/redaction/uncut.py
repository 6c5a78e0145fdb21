"""`cut`: truncates texts that may contain a secret, after they are masked.

If a text were truncated first, part of a secret at the end would remain, which no rule recognizes.
So `cut` only notes the limit; `Redactor.apply`, which all events pass, masks and then truncates.
"""

from __future__ import annotations

ROOM = 128 * 1024
"""Characters after the limit that are also masked: more than any secret has, but not too many."""


class Uncut(str):
    """A text that is to be truncated; made by `cut`.

    Attributes:
        most: Maximum number of characters to keep.
        mark: The text at the end of a truncated text.
    """

    __slots__ = ("mark", "most")

    most: int
    mark: str

    def kept(self, masked: str) -> str:
        """Return the part to keep of `masked`, which is this text with masks."""
        kept = masked[: self.most]
        opening = max(kept.rfind("[secret:"), kept.rfind("[pii:"))
        if opening >= 0 and "]" not in kept[opening:]:
            kept = kept[:opening]  # do not split a mask
        return kept + self.mark


def cut(text: str, most: int, *, mark: str | None = None) -> str:
    """Return `text`; if it is longer than `most` characters, mark it to be truncated.

    A truncated text ends with `mark`, by default its number of characters. Lone surrogates are
    escaped, so that UTF-8 can encode it.
    """
    kept = text[: most + ROOM]
    if not kept.isascii():
        kept = kept.encode(errors="backslashreplace").decode()
    if len(text) <= most:
        return kept
    uncut = Uncut(kept)
    uncut.most = most
    uncut.mark = f"… ({len(text):,} characters)" if mark is None else mark
    return uncut


def cut_length(text: str) -> int:
    """Return the approximate number of characters that will be kept of a text."""
    return text.most + len(text.mark) if type(text) is Uncut else str.__len__(text)
