"""Secrets that follow a name in a text: ``password: x``, ``?api_key=x``, ``--token x``.

`Names` decides whether a name is that of a secret. The text after it must look like a secret: a
template, a type, a variable and the next word of a sentence do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tracker.redaction.names import NUMERIC, SCHEMES, is_secret, mask_named
from tracker.redaction.rules import MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.redaction.names import Names

    Found = Iterator[tuple[str, int, int]]

_NAME = r"(?:(?<!\w)(?<!\w[.-])|(?<=%5B))(?P<name>[^\W\d][\w.\-]{0,60})"
_ASSIGNED = re.compile(
    _NAME + r"(?:\\{0,3}[\"'`\]]|%5D){0,2}(?P<gap>[ \t]{0,8})"
    r"(?P<sign>=>|:=|==?|:|%3[Dd])[ \t]{0,8}"
)
_END = r"\s\"'`<>&,;|)}\]\\"
_VALUE = re.compile(
    r"[bruf]{0,2}(?P<q1>[\"'`])(?P<v1>(?:[^\\\r\n]|\\.){0,4096}?)(?P=q1)"
    r"|(?P<q2>\\{1,3}[\"'])(?P<v2>[^\r\n]{0,4096}?)(?<!\\)(?P=q2)"
    r"|\[[ \t]{0,4}(?P<v4>\\{0,3}[\"'][^\[\]\r\n]{0,4096})\]"
    rf"|[\"'`]?(?P<v3>(?:[^{_END}]"
    rf"|[,;|)}}\]](?=[^{_END}])(?![\w.\-]{{1,60}}[\"']?\s?[=:])"
    r"|\\(?![nrtu\"'\\])){1,4096})"
)
_FLAG = re.compile(r"(?<![^\s\"'])--?(?P<name>[A-Za-z][\w-]{1,60})[ \t]{1,4}(?=[^\s-])")
_HEADER = re.compile(
    r"(?<!\w)(?P<name>(?i:(?:proxy-)?authorization|(?:set-)?cookie))"
    r"\\{0,3}[\"']?[ \t]{0,4}:[ \t]{0,4}\\{0,3}[\"']?(?P<value>[^\r\n\"'`\\]{1,8192})"
)
_SCHEME = re.compile(
    r"(?P<scheme>[A-Za-z][\w-]{0,20}[ \t]{1,4})?(?P<key>[^\s,]{6,8192})(?P<more>.*)"
)
_ELEMENT = re.compile(
    r"<(?P<name>[A-Za-z_][\w.:-]{0,60})(?:\s[^<>]{0,256})?>(?P<value>[^<>]{1,4096})</"
)
_ATTRIBUTES = re.compile(
    r"(?<!\w)(?:key|name)=[\"'](?P<name>[\w.:-]{1,80})[\"']\s{1,4}value=[\"'](?P<value>[^\"'<>]{1,4096})"
)
_USER = re.compile(r"(?<!\S)(?:-u|--user)[ =]?[\"']?[^\s:\"']{1,64}:(?P<value>[^\s\"']{1,256})")
_CLIENTS = ("curl", "wget", "http")
_SPACED = re.compile(
    r"(?:(?<!\S)sshpass[ \t]{1,4}-p[ \t]?|(?<!\S)login[ \t]{1,4}\S{1,64}[ \t]{1,4}"
    r"password[ \t]{1,4}"
    r"|mysql\w{0,10}[ \t][^\r\n|]{0,256}?(?<=\s)-p(?=\S)"
    r"|(?<!\w)auth[ ]?=[ ]?\([ ]?[\"'][^\"'\r\n]{1,128}[\"'][ ]?,[ ]?(?=[\"'])"
    r"|(?<=\s)--?pass(?:[ \t]|=)"
    r"|configure[ \t]{1,4}set[ \t]{1,4}\w{0,40}(?:secret|token)\w{0,40}[ \t]{1,4})"
    r"[\"']?(?P<value>[^\s\"']{1,1024})"
)

_REFERENCE = re.compile(
    r"(?:self|cls|os|settings|config|cfg|conf|args|opts|options|request|req|env|environ|process|ctx"
    r"|this|kwargs|params|data|form|secrets|vars|var|local|module|each|app)\.[A-Za-z_]"
    r"|[A-Za-z_][\w.]*[(\[]"
)
"""A variable or a call: code, not a value."""
_LINKS = ("http://", "https://")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*[.!?:]?")
_NEXT_WORD = re.compile(r"[ \t]+\w")
_LINE_START = re.compile(r"(?:^|[\r\n])[\s>#*<-]*$|[\"'`{,]\s?$")
_FUNCTION_WORDS = frozenset({
    "a", "after", "an", "and", "ask", "are", "as", "at", "be", "before", "but", "by", "can",
    "click", "do", "end", "enter", "error", "expected", "for", "found", "from", "go", "has",
    "how", "if", "in", "instead", "into", "is", "it", "its", "key", "keys", "look", "may",
    "means", "must", "no", "of", "option", "or", "our", "please", "see", "should", "so", "that",
    "the", "their", "then", "there", "this", "to", "too", "unexpected", "use", "used", "user",
    "via", "was", "we", "what", "when", "where", "which", "will", "with", "you", "your",
})  # fmt: skip
_SECOND_WORDS = frozenset({"key", "token", "secret", "phrase", "password"})
_PREVIOUS = re.compile(r"(\w{1,40})[ ]$")
_HIDDEN = "\0"
_MASKED = re.compile(SCHEMES + _HIDDEN)
_LONG = 256
_SAID = NUMERIC | {"api_key", "api_token", "access_token", "auth_token"}
"""Kinds that a sentence may reveal without a sign: ``the password is x``."""
_SENTENCE = re.compile(
    r"(?<!\w)(?<!\w[.-])(?P<name>[A-Za-z][\w.\-]{0,40})[ \t]{1,4}(?:is:?[ \t]{1,4})?[\"'`]?"
    r"(?P<value>(?=[^\s\d]{0,64}\d)(?=[^\sA-Za-z]{0,64}[A-Za-z])[^\s/()<>\"'`,;:]{6,256})(?=[\s\"'`.,;!?]|$)"
)
_HEADER_ONLY = ("authorization", "cookie")


_SIGNS = frozenset("=:<-%0123456789")
"""What all patterns here need, apart from two of the commands."""


def may_find(lowered: str, rest: str) -> bool:
    """Return False for most texts in which `hide` finds nothing, and for no others.

    The text is given in lower case and as its `rest_of`.
    """
    if not _SIGNS.isdisjoint(rest) or not lowered.isascii():  # there are other digits
        return True
    return "login" in lowered or "configure" in lowered


def hide(text: str, names: Names, counts: dict[str, int]) -> str:
    """Return `text` with masks for the secrets that follow names, and count them by kind."""
    for find in _FINDERS:
        # Existing masks are neither names nor values.
        seen = MASK.sub(lambda mask: _HIDDEN * len(mask[0]), text) if "[" in text else text
        pieces, end = [], 0
        for kind, start, stop in find(seen, names):
            if (
                start >= end
                and not _MASKED.match(seen, start)
                and is_secret(kind, seen[start:stop])
            ):
                counts[kind] = counts.get(kind, 0) + 1
                pieces += [text[end:start], mask_named(kind)]
                end = stop
        if pieces:
            text = "".join([*pieces, text[end:]])
    return text


def _assignments(text: str, names: Names) -> Found:
    end = 0
    for match in _ASSIGNED.finditer(text):
        kind = names[match["name"]] or _of_two_words(match, text, names)
        value = _VALUE.match(text, match.end()) if kind and match.start() >= end else None
        if kind is None or value is None:
            continue
        start, stop = value.span(value.lastgroup or 0)
        bare = value.lastgroup == "v3"
        if bare:
            stop = start + len(text[start:stop].rstrip(".:!?"))
        said = text[start:stop]
        if any(map(str.isalnum, said)) and (
            not bare or _stands_for_itself(kind, said, match, text, stop, names)
        ):
            yield kind, start, stop
            end = stop
        elif len(said) > _LONG:  # not to be searched again, name by name
            end = stop


def _of_two_words(match: re.Match[str], text: str, names: Names) -> str | None:
    """Return the kind of a name that contains a space, as in "API key: x"."""
    if match["name"].lower() not in _SECOND_WORDS:
        return None
    previous = _PREVIOUS.search(text, max(0, match.start() - 41), match.start())
    return None if previous is None else names[f"{previous[1]}_{match['name']}"]


def _stands_for_itself(
    kind: str, said: str, match: re.Match[str], text: str, stop: int, names: Names
) -> bool:
    """Return True if a value without quotes is a secret, not code or a word of a sentence."""
    if _REFERENCE.match(said) or names[said] is not None or said.startswith(_LINKS):
        return False
    if match["sign"] == "=" and not match["gap"]:
        return True
    if kind in _HEADER_ONLY:
        return False
    if not _WORD.fullmatch(said) or not (said.islower() or said.istitle()):
        return True
    if said.lower() in _FUNCTION_WORDS or _NEXT_WORD.match(text, stop):
        return False
    before = text[max(0, match.start() - 200) : match.start()]
    return _LINE_START.search(before) is not None


def _sentences(text: str, names: Names) -> Found:
    for match in _SENTENCE.finditer(text):
        kind = names[match["name"]] or _of_two_words(match, text, names)
        if kind in _SAID:
            yield (
                kind,
                match.start("value"),
                match.start("value") + len(match["value"].rstrip(".!?")),
            )


def _flags(text: str, names: Names) -> Found:
    for match in _FLAG.finditer(text):
        kind = names[match["name"]]
        value = _VALUE.match(text, match.end()) if kind is not None else None
        if kind is None or value is None:
            continue
        said = value[value.lastgroup or 0]
        if said.lower() not in _FUNCTION_WORDS:
            yield kind, *value.span(value.lastgroup or 0)


def _headers(text: str, names: Names) -> Found:
    for match in _HEADER.finditer(text):
        kind = names[match["name"]]
        said, start = match["value"], match.start("value")
        if kind == "cookie" and re.match(r"[\w.-]{1,128}=\S", said):
            yield kind, start, start + len(said.rstrip())
        elif kind == "authorization":
            key = _SCHEME.match(said)
            if key is not None and _is_key(key):
                yield kind, start, start + len(said.rstrip())


def _is_key(match: re.Match[str]) -> bool:
    """Return True if one word, or pairs, follow the scheme, as in an authorization header."""
    key, more = match["key"], match["more"].strip(" ,")
    if more and "=" not in more:
        return False
    return not key.isalpha() or not (key.islower() or key.istitle())


def _elements(text: str, names: Names) -> Found:
    for pattern in (_ELEMENT, _ATTRIBUTES):
        for match in pattern.finditer(text):
            kind = names[match["name"]]
            if kind is not None:
                yield kind, *match.span("value")


def _commands(text: str, names: Names) -> Found:
    for match in _SPACED.finditer(text):
        if match["value"] not in _FUNCTION_WORDS:
            yield "password", *match.span("value")
    if any(client in text for client in _CLIENTS):
        for match in _USER.finditer(text):
            if not match["value"].isdecimal():  # as in `docker run -u 1000:1000`
                yield "password", *match.span("value")


_FINDERS: tuple[Callable[[str, Names], Found], ...] = (
    _headers, _assignments, _flags, _sentences, _elements, _commands,
)  # fmt: skip
