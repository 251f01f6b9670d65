"""Where a text was cut in two, what is left of a key on either side is masked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._redaction import MASK, mask_end, mask_start, mask_text
from kwai_middleware._secret import Secret

KEY = 'tenant-key/of+acme="7"\\no%0A-1'
SECRETS = (Secret("quite-another-key"), Secret(KEY))
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "as escapes": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "in a URL": lambda text: quote(text, safe=""),
    "in a URL twice": lambda text: quote(quote(text, safe=""), safe=""),
    "all of it percent-encoded": lambda text: "".join(f"%{ord(character):02x}" for character in text),
    "in base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
}
PLAIN = "-_. abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_cut_anywhere_leaves_less_than_a_piece_on_either_side(form: str) -> None:
    """Of a key in any form no more is left before a cut, nor behind it, than might be a piece of a word."""
    written = FORMS[form](KEY)
    largest = len(FORMS[form]("/" * 8)) + 8
    for place in range(len(written) + 1):
        head = mask_text(mask_end(written[:place], SECRETS), SECRETS)
        tail = mask_text(mask_start(written[place:], SECRETS), SECRETS)
        assert largest > max(map(len, head.split(MASK)))
        assert largest > max(map(len, tail.split(MASK)))


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"in base64"}))
def test_what_stands_before_and_behind_a_cut_key_stays(form: str) -> None:
    """All of the key's piece goes, and nothing beside it."""
    for size in range(8, len(KEY)):
        head, tail = FORMS[form](KEY[:size]), FORMS[form](KEY[-size:])
        assert f"before {MASK}" == mask_end(f"before {head}", SECRETS)
        assert f"{MASK} after" == mask_start(f"{tail} after", SECRETS)


@given(text=st.text(PLAIN, max_size=30), size=st.integers(8, len(KEY)))
@example(text="tenant-", size=8)
def test_the_longest_piece_of_a_key_is_masked(text: str, size: int) -> None:
    """Whatever stands beside it, no beginning or end of a key is left that could be told from a word."""
    assert not mask_end(text + KEY[:size], SECRETS).endswith(KEY[:size])
    assert not mask_start(KEY[-size:] + text, SECRETS).startswith(KEY[-size:])


@pytest.mark.parametrize(
    ("left", "masked"),
    [
        ("%", f"x {MASK}"), ("%2", f"x {MASK}"), ("\\", f"x {MASK}"), ("\\u", f"x {MASK}"), ("\\u002", f"x {MASK}"),
        ("\\\\u00", f"x {MASK}"), (" %", "x tenant-key %"), ("%%2", "x tenant-key%%2"),
    ],
)  # fmt: skip
def test_an_escape_that_was_cut_hides_no_beginning(left: str, masked: str) -> None:
    """What is left of the escape that came next belongs to the key."""
    assert masked == mask_end(f"x tenant-key{left}", (Secret("tenant-key=and-more"),))


@pytest.mark.parametrize(
    ("left", "masked"),
    [
        ("3D", MASK), ("D", MASK), ("u003d", MASK), ("\\u003d", MASK), ("03d", MASK), ("003D", MASK),
        ("xy", "xyand-more-of-it"), (" ", " and-more-of-it"),
    ],
)  # fmt: skip
def test_the_rest_of_an_escape_hides_no_end(left: str, masked: str) -> None:
    """What is left of the escape before belongs to the key."""
    assert f"{masked} x" == mask_start(f"{left}and-more-of-it x", (Secret("tenant-key=and-more-of-it"),))


def test_an_unknown_key_is_told_by_its_beginning() -> None:
    """Where a cut has left too little of a key for its shape, the prefix tells."""
    assert f"with {MASK}" == mask_end("with sk-or-v1-01", ())
    assert "ask-me" == mask_end("ask-me", ())


@pytest.mark.parametrize("text", ["", "tenant-", "a tenant-k e", "tenant-key/of tail", "no%0A-"])
def test_less_than_8_characters_are_no_key(text: str) -> None:
    """Words stay, also where the text is cut within them."""
    assert text == mask_end(text, SECRETS)
    assert text == mask_start(text, SECRETS) or text.startswith("no")
