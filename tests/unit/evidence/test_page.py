"""Pages for people: whatever a text is, it is shown as text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from tracker.evidence import page

ODD = st.text(
    st.one_of(st.sampled_from("<>&\"'/=!-`\0\r\n\x85\u2028\u202e\ud800"), st.characters())
)


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [tag, *(name for name, _ in attrs)]

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_data(self, data: str) -> None:
        self.shown += data


@given(ODD)
def test_any_text_is_shown_and_becomes_no_part_of_the_page(text: str) -> None:
    """No text makes a tag, an attribute or a comment, and what cannot be seen is written out."""
    made = page.document(text, [page.facts([(text, text)]), page.table([text], [[text]])])
    made.encode()
    nothing = page.document("", [page.facts([("", "")]), page.table([""], [[""]])])
    assert Parsed(made).tags == Parsed(nothing).tags
    assert made.rstrip("\n").isprintable()
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    assert Parsed(page.items([text])).shown == shown


def test_a_time_is_shown_in_utc_or_as_it_is() -> None:
    """Also one that no calendar has, or that is none."""
    assert page.time(1_793_534_400_001) == "2026-11-01 12:00:00.001"
    assert page.time(10**18) == "1000000000000000000"
    assert page.time("soon") == "soon"
    assert page.time(None) == "None"
