"""A long text is masked in windows, and where one ends makes no difference."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._pace import WINDOW
from kwai_middleware._redaction import MASK, Keys, mask_json, mask_text
from kwai_middleware._redaction.shapes import shapes
from kwai_middleware._secret import Secret

PLAIN = "tenant-key-7-of-acme"
ODD = 'tenant"key/of\\acme+8'
SECRETS = Keys((Secret(PLAIN), Secret(ODD), Secret("tenant-key-7-of-acme-and-more")))
KEYS = [
    PLAIN, ODD, "tenant-key-7-of-acme-and-more", "sk-or-v1-" + "0a" * 32, "sk-ant-api03-" + "x" * 20,
    "sk-" + "Ab_9-" * 5, "gsk_" + "Q7" * 10, "xai-" + "a1" * 9, "AIza" + "Sy_-" * 9, "pplx-" + "b2" * 9,
    "hf_" + "c3" * 9, "AKIAABCDEFGH12345678",
]  # fmt: skip
FORMS = [
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(json.dumps(text))[3:-3].replace("/", r"\/"),
    lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    lambda text: "".join(f"\\\\\\u{ord(character):04X}" for character in text),
    lambda text: quote(text, safe=""),
    lambda text: quote(quote(text, safe=""), safe=""),
    lambda text: "".join(f"%{ord(character):02x}" for character in text),
    lambda text: "".join(f"%u00{ord(character):02x}".replace("%u", "%5cu") for character in text),
    lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    lambda text: base64.urlsafe_b64encode(f"is:{text}!".encode()).decode(),
]
WRITTEN = st.builds(lambda form, key: form(key), st.sampled_from(FORMS), st.sampled_from(KEYS))
BITS = st.sampled_from(
    ["sk-", "sk-or-v1-", "sk-ant-", "gsk_", "AKIA", "A", "a", "-", "_", "%", "%4", "%41", "\\", "\\\\", "\\u", "\\u00",
     "\\u0041", "\\/", "\\u007", "/", " ", "ä", "\n", "0", "%25"]
)  # fmt: skip
TEXTS = st.lists(WRITTEN | BITS, max_size=8).map("".join)
FILLERS = st.sampled_from(["x", "\\", "%", "\\u0041", "%41", "sk- ", "ä", "x ", "\\/", "0/"])


def filled(filler: str, size: int) -> str:
    """A text of `size` characters without a key, and a blank behind it."""
    return (filler * (size // len(filler) + 1))[: size - 1] + " "


@given(filler=FILLERS, back=st.integers(0, 200), text=TEXTS, windows=st.integers(1, 2))
@example(filler="\\", back=1, text="\\u0073k-" + "a" * 20, windows=1)
@example(filler="x", back=2, text="sk-or-v1-" + "0a" * 32, windows=1)
def test_a_text_across_the_border_of_a_window_is_masked_as_one_within(
    filler: str, back: int, text: str, windows: int
) -> None:
    """Windowed masking gives exactly what masking at one go gives, whatever stands where a window ends."""
    before = filled(filler, windows * WINDOW - back)
    assert f"{before}{mask_text(text, SECRETS)} end" == mask_text(f"{before}{text} end", SECRETS)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_a_key_is_found_at_every_place_around_a_border(form: int, key: str) -> None:
    """Shifted character by character across the end of a window, a key is always masked, in all its spellings."""
    written = FORMS[form](key)
    whole = mask_text(f" {written} ", SECRETS)
    if key in (PLAIN, ODD) or form not in (9, 10):
        assert MASK in whole
    # Where a text is made of escapes, one place in each is enough; which one differs from place to place.
    for back in range(0, len(written) + 3, 1 + len(written) // 50):
        before = "x" * (WINDOW - back)
        assert f"{before}{whole}end" == mask_text(f"{before} {written} end", SECRETS)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_document_is_found_at_every_place_around_a_border(key: str) -> None:
    """A document of several windows stays one, without the key."""
    head = '{"a":["'
    for back in range(len(key) + 5):
        before = "x" * (WINDOW - len(head) - back)
        document = json.dumps({"a": [f"{before} {key} ä", {key: 1}]}, ensure_ascii=False, separators=(",", ":"))
        assert {"a": [f"{before} {MASK} ä", {MASK: 1}]} == json.loads(mask_json(document.encode(), SECRETS))


@given(size=st.integers(WINDOW - 2, 3 * WINDOW + 2), tail=st.sampled_from(["", ".", " sk-", "é"]))
def test_a_shape_longer_than_a_window_is_masked_whole(size: int, tail: str) -> None:
    """What looks like a key is masked to its end, however far that is."""
    for begins, goes_on in (("sk-", "a"), ("sk-or-v1-", "0"), ("hf_", "b"), ("AIza", "_")):
        assert f"use {MASK}{tail}" == mask_text(f"use {begins}{goes_on * size}{tail}")
    # This one has an end of its own.
    assert f"use {MASK}{'A' * size}" == mask_text(f"use AKIA{'A' * 16}{'A' * size}")


def test_shapes_do_not_overlap() -> None:
    """What begins within another is a piece of it, also in the next window."""
    key = "sk-" + "sk-a-" * WINDOW
    assert [(1, 1 + len(key))] == list(shapes(f" {key} ".encode()))


def test_hostile_texts_take_linear_time() -> None:
    """Megabytes of nothing but beginnings of keys and of escapes are looked through, and come back as they were."""
    for filler in ("sk- ", "\\", "%", "\\u00", "%25", "AIza ", "\\u005c"):
        text = filler * (2_000_000 // len(filler))
        assert text == mask_text(text, SECRETS)
