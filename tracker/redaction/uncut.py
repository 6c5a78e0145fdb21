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
        tail: Number of characters to keep of its end, in whole lines; then the middle is left out.
    """

    __slots__ = ("mark", "most", "tail")

    most: int
    mark: str
    tail: int

    def kept(self, masked: str) -> str:
        """Return the part to keep of `masked`, which is this text with masks."""
        if self.tail:
            return self._without_middle(masked)
        kept = masked[: self.most]
        opening = max(kept.rfind("[secret:"), kept.rfind("[pii:"))
        if opening >= 0 and "]" not in kept[opening:]:
            kept = kept[:opening]  # do not split a mask
        return kept + self.mark

    def _without_middle(self, masked: str) -> str:
        if len(masked) <= self.most:
            return masked
        head = masked[: self.most - self.tail].rpartition("\n")[0]
        tail = masked[-self.tail :].partition("\n")[2]
        return f"{head}\n{self.mark}\n{tail}"


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
    uncut.most, uncut.tail = most, 0
    uncut.mark = f"… ({len(text):,} characters)" if mark is None else mark
    return uncut


def cut_middle(text: str, most: int) -> str:
    """Return `text`; if it is longer than `most` characters, mark its middle lines to be left out.

    UTF-8 must be able to encode it.
    """
    if len(text) <= most:
        return text
    uncut = Uncut(text)
    uncut.most, uncut.tail, uncut.mark = most, most // 2, "[the middle was left out]"
    return uncut


def cut_length(text: str) -> int:
    """Return the approximate number of characters that will be kept of a text."""
    return text.most + len(text.mark) if type(text) is Uncut else str.__len__(text)
