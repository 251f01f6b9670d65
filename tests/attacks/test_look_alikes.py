"""Identifiers that look like another customer's: one customer, another one that can be told apart, or a 400."""

from __future__ import annotations

import pytest

from kwai_middleware import Caller
from tests.apps.doors import DOORS, Door, Seen

PLAIN_FIELDS = {
    "x-customer-id": "identifier",
    "x-customer-email": "email",
    "x-customer-group": "group",
    "x-thread-id": "thread",
}
UNSEEN = {
    "soft hyphen": "ac\u00adme",
    "grapheme joiner": "ac\u034fme",
    "arabic letter mark": "acme\u061c",
    "hangul filler": "acme\u3164",
    "halfwidth filler": "\uffa0acme",
    "khmer vowel": "ac\u17b4me",
    "mongolian separator": "ac\u180eme",
    "zero-width space": "acme\u200b",
    "zero-width non-joiner": "ac\u200cme",
    "zero-width joiner": "ac\u200dme",
    "left-to-right mark": "acme\u200e",
    "word joiner": "ac\u2060me",
    "byte order mark": "\ufeffacme",
    "variation selector": "acme\ufe0f",
    "another variation selector": "acme\U000e0101",
    "tag": "acme\U000e0041",
    "annotation": "ac\ufff9me",
    "braille blank": "acme\u2800",
    "no-break space": "ac\u00a0me",
    "em space": "ac\u2003me",
    "ideographic space": "ac\u3000me",
}
TURNED = {
    "override": "acme\u202eemca",
    "embedding": "\u202aacme",
    "isolate": "\u2067acme\u2069",
    "line separator": "acme\u2028INFO logged in as root",
    "paragraph separator": "acme\u2029",
}


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def is_refused(seen: Seen, header: str, reason: str) -> None:
    """Assert that the app did not run, and that the answer names the header and no value."""
    assert (400, False) == (seen.status, seen.app_ran)
    assert f"The header {header} has a {reason}." == seen.problem["detail"]


@pytest.mark.parametrize("header", PLAIN_FIELDS)
@pytest.mark.parametrize("value", UNSEEN.values(), ids=UNSEEN)
def test_what_nobody_sees_is_refused(door: Door, header: str, value: str) -> None:
    """Two identifiers that look the same to everybody are never two customers, groups or conversations."""
    is_refused(door.ask([(header, value)]), header, "character that cannot be seen")


@pytest.mark.parametrize("header", [*PLAIN_FIELDS, "x-customer-name"])
@pytest.mark.parametrize("value", TURNED.values(), ids=TURNED)
def test_what_makes_a_line_read_as_another_is_refused(door: Door, header: str, value: str) -> None:
    """Line separators and turned directions of writing are in no field, names included."""
    is_refused(door.ask([(header, value)]), header, "control character")


@pytest.mark.parametrize(
    "name",
    [
        "\U0001f469\u200d\U0001f680 Ada",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "Ada\u00a0L",
        "\u2764\ufe0f",
    ],
)
def test_a_name_is_written_as_its_people_write_it(door: Door, name: str) -> None:
    """A name decides nothing: joined emoji, Persian and typographers' blanks are let through."""
    assert Caller(identifier="a", name=name) == door.ask([("x-customer-id", "a"), ("x-customer-name", name)]).caller


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        pytest.param("Zu\u0308rich", "Z\u00fcrich", id="decomposed"),
        pytest.param("\u212bngstr\u00f6m", "\u00c5ngstr\u00f6m", id="angstrom-sign"),
        pytest.param("\u2126", "\u03a9", id="ohm-sign"),
        pytest.param("\u1100\u1161", "\uac00", id="jamo"),
        pytest.param("q\u0323\u0307", "q\u0307\u0323", id="order-of-marks"),
        pytest.param("acme ", "acme", id="trailing-blank"),
        pytest.param("acme\u00a0", "acme", id="trailing-no-break-space"),
        pytest.param("\u3000acme", "acme", id="leading-ideographic-space"),
    ],
)
def test_two_spellings_of_one_text_are_one_customer(door: Door, sent: str, meant: str) -> None:
    """However Unicode was composed and whatever blanks stand around it, it is the same identifier."""
    first, second = door.ask([("x-customer-id", sent)]).caller, door.ask([("x-customer-id", meant)]).caller
    assert first is not None
    assert first == second


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param("\u0430cme", id="cyrillic"),
        pytest.param("\uff41\uff43\uff4d\uff45", id="full-width"),
        pytest.param("Acme", id="case"),
        pytest.param("acm\u0435", id="cyrillic-at-the-end"),
        pytest.param("acme\u0335", id="overlay"),
        pytest.param("ac\u043ce", id="cyrillic-m"),
    ],
)
def test_a_look_alike_is_another_customer(door: Door, twin: str) -> None:
    """Letters of other alphabets, widths and cases are not folded: a look-alike never gets the other one's account."""
    assert Caller(identifier=twin) == door.ask([("x-customer-id", twin)]).caller
    assert Caller(identifier="acme") != door.ask([("x-customer-id", twin)]).caller


@pytest.mark.parametrize("digits", ["\uff14\uff12", "\u0664\u0662", "4\u20e32", "\u2463\u2461"])
def test_other_digits_are_not_the_number(door: Door, digits: str) -> None:
    """Customer 42 is not reached by the digits of another script."""
    assert Caller(identifier=digits) == door.ask([("x-customer-id", digits)]).caller


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\r", "\n", "\x0b", "\x0c", "\x1b", "\x9b"])
@pytest.mark.parametrize("field", ["identifier", "name", "email", "group", "thread", "issuer"])
def test_no_caller_breaks_a_line(field: str, separator: str) -> None:
    """Also what an app or a token says of a caller stays within its line."""
    with pytest.raises(ValueError, match=f"^Caller.{field}: no control characters$"):
        Caller(**{field: f"acme{separator}INFO logged in as root"})
