"""Rules for personal data; imported only with ``redaction="pii"``, since it needs the extra.

Matches of a pattern are checked by python-stdnum, phonenumbers or `ipaddress`, so that an order
number is not mistaken for a payment card.
"""

from __future__ import annotations

import ipaddress
import re

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from tracker.redaction.rules import Gate, Gates, Rule

_CARD_NUMBER = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|6(?:011|5\d\d|4[4-9]\d|2\d\d)\d{12,15}"
)
"""Prefixes of card networks, and the lengths of their numbers."""
_IBAN_BOUNDARY = r"(?![A-Za-z0-9])"


def _is_card(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text)
    return _CARD_NUMBER.fullmatch(digits) is not None and bool(luhn.is_valid(digits))


def _is_phone(text: str) -> bool:
    try:
        number = phonenumbers.parse(text, None if text.startswith("+") else "US")
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number)


def _is_public_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_iban(text: str) -> bool:
    return bool(iban.is_valid(text))


def _is_ssn(text: str) -> bool:
    return bool(ssn.is_valid(text))


def _anything(_: str) -> bool:
    return True


def _iban_pattern() -> str:
    """Return one alternative per possible length of an IBAN, longest first."""
    # Each length separately, so that a word after the number is not part of the match.
    bodies = []
    for length in range(34, 14, -1):
        groups, odd = divmod(length - 4, 4)
        last = rf" ?[A-Z0-9]{{{odd}}}" if odd else ""
        bodies.append(rf"(?: ?[A-Z0-9]{{4}}){{{groups}}}{last}{_IBAN_BOUNDARY}")
    return rf"(?<![A-Za-z0-9])(?P<secret>[A-Z]{{2}}\d{{2}}(?:{'|'.join(bodies)}))"


_EMAIL = Rule(
    "email",
    re.compile(
        r"(?<![\w.+%-])(?P<secret>[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24})(?![\w-])"
    ),
    _anything,
)
_IBAN = Rule("iban", re.compile(_iban_pattern()), _is_iban)
# Without spaces or as printed on cards; an expiry date may follow.
_CARD = Rule(
    "payment_card",
    re.compile(
        r"(?<![\w.+-])(?P<secret>[2-6](?:\d{12,18}|\d{3}(?P<gap>[ -])"
        r"(?:\d{4}(?P=gap)\d{4}(?P=gap)\d{4}|\d{6}(?P=gap)\d{4,5})))(?![\w-])"
    ),
    _is_card,
)
_SSN = Rule("us_ssn", re.compile(r"(?<![\w-])(?P<secret>\d{3}-\d{2}-\d{4})(?![\w-])"), _is_ssn)
_IPV4 = Rule(
    "ip_address",
    re.compile(r"(?<![\w.])(?P<secret>(?:\d{1,3}\.){3}\d{1,3})(?!\.?\w)"),
    _is_public_address,
)
_IPV6 = Rule(
    "ip_address",
    re.compile(r"(?<![\w:.])(?P<secret>(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4})(?![\w:])"),
    _is_public_address,
)
# With a country code, or in North American form; plain digits could be anything.
_PHONE = Rule(
    "phone",
    re.compile(
        r"(?<![\w+-])(?P<secret>\+\d(?:[ ().-]{0,2}\d){6,14}"
        r"|\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-. ]\d{3}[-. ]\d{4})(?![\w-])"
    ),
    _is_phone,
)

GATES = Gates(
    Gate("@", (_EMAIL,)),
    Gate("", (_IBAN, _CARD, _SSN, _IPV4, _PHONE), re.compile(r"\d(?:[ ().-]{0,2}\d){3}")),
    Gate(":", (_IPV6,), re.compile(r"[0-9A-Fa-f]::?[0-9A-Fa-f]{1,4}")),
)
"""The rules for personal data."""
