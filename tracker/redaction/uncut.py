"""`cut`: the one way to cut what may hold a secret: it is masked first.

Cut first, a secret that straddles the end would leave a part that no rule knows any more. So `cut`
only says how much is wanted; `Redactor.apply`, which every event passes, masks and then cuts.
"""

from __future__ import annotations

ROOM = 128 * 1024
"""Characters behind the cut that are masked too: longer than any secret, and a bound on time."""


class Uncut(str):
    """A text of which less is to be kept; made by `cut`.

    Attributes:
        most: Characters to keep.
        mark: What stands where the text was cut.
    """

    __slots__ = ("mark", "most")

    most: int
    mark: str

    def kept(self, masked: str) -> str:
        """Return what is kept of this text, which has become `masked`."""
        kept = masked[: self.most]
        opening = max(kept.rfind("[secret:"), kept.rfind("[pii:"))
        if opening >= 0 and "]" not in kept[opening:]:
            kept = kept[:opening]  # no part of a mask
        return kept + self.mark


def cut(text: str, most: int, *, mark: str | None = None) -> str:
    """Return `text`; if it is longer than `most` characters, as one that will be cut there.

    Where it is cut stands `mark`, by default how many characters it had. Lone surrogates are
    escaped, so that UTF-8 can hold it.
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
    """Return about how many characters will be kept of a text."""
    return text.most + len(text.mark) if type(text) is Uncut else str.__len__(text)
