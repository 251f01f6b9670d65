"""No key survives masking, and what is masked stays the document that it was."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._redaction import MASK, mask_json, mask_text
from kwai_middleware._secret import Secret

SHAPES = [
    pytest.param("sk-or-v1-" + "0a" * 32, id="openrouter"),
    pytest.param("sk-proj-" + "Ab_9-" * 20, id="openai"),
    pytest.param("sk-ant-api03-" + "x" * 40, id="anthropic"),
    pytest.param("gsk_" + "Q7" * 20, id="groq"),
    pytest.param("xai-" + "a1" * 20, id="xai"),
    pytest.param("AIza" + "Sy_-" * 9, id="google"),
    pytest.param("pplx-" + "b2" * 20, id="perplexity"),
    pytest.param("hf_" + "c3" * 17, id="hugging face"),
    pytest.param("AKIA" + "ABCDEFGH12345678", id="aws"),
]
KEYS = st.text(alphabet=[chr(code) for code in range(33, 127)], min_size=8, max_size=24)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("key", SHAPES)
def test_known_shapes_are_masked_wherever_they_stand(key: str) -> None:
    """Each vendor's shape of key goes, with nothing left of it, and the text around it stays."""
    assert f"use {MASK}, please" == mask_text(f"use {key}, please")
    assert MASK == mask_text(key)
    assert f'{{"a":"Bearer {MASK}"}}'.encode() == mask_json(f'{{"a":"Bearer {key}"}}'.encode())


@pytest.mark.parametrize(
    "text", ["", "ask-me", "sk-short", "risk-free", "gsk_", "a hf_ b", "AKIA", "xai-1", "plain words, no key"]
)
def test_text_without_a_key_is_left_alone(text: str) -> None:
    """The beginning of a shape alone is no key."""
    assert text == mask_text(text)


def test_a_document_without_a_key_is_not_even_copied() -> None:
    """Masking costs a search, and no second document, where there is nothing to mask."""
    document = b'{"content":"ask the clerk"}'
    assert document is mask_json(document, (Secret("another-key"),))


def test_a_bound_key_of_any_shape_is_masked() -> None:
    """The caller's own keys go too, though they look like nothing in particular."""
    secrets = (Secret("correct-horse"), Secret("battery+staple/=="))
    assert f"{MASK} and {MASK}" == mask_text("correct-horse and battery+staple/==", secrets)
    assert b'{"k":["****","****"]}' == mask_json(b'{"k":["correct-horse","battery+staple/=="]}', secrets)


def test_a_key_that_another_begins_with_uncovers_nothing() -> None:
    """The longer of two keys is masked whole, in whichever order they are given."""
    short, long = Secret("tenant-key"), Secret("tenant-key-with-more")
    for secrets in ((short, long), (long, short)):
        assert MASK == mask_text("tenant-key-with-more", secrets)
        assert b'"****"' == mask_json(b'"tenant-key-with-more"', secrets)


def test_a_key_as_short_as_a_word_is_left_alone() -> None:
    """A caller who names `a` as a key does not blacken every record of theirs."""
    assert "a banana" == mask_text("a banana", (Secret("a"), Secret("banan")))
    assert b'{"a":1}' == mask_json(b'{"a":1}', (Secret("a"), Secret("1")))


def test_the_spelling_of_json_is_no_hiding_place() -> None:
    """A key with a quote or a backslash is found in a document, where both are escaped."""
    key = 'quo"te\\back'
    assert f'{{"text":"my {MASK}!"}}'.encode() == mask_json(
        json.dumps({"text": f"my {key}!"}, separators=(",", ":")).encode(), (Secret(key),)
    )


@pytest.mark.parametrize("key", ['","model":"', "17000000", '"},"b":{"', "[1,2,3,4]"])
def test_a_key_made_of_structure_does_not_break_the_document(key: str) -> None:
    """A caller cannot have their own records refused by sending a key that looks like JSON."""
    value = {
        "a": {"x": "17000000"},
        "b": {"c": [1, 2, 3, 4], "at": 17000000.5},
        "id": "",
        "model": "m",
        "said": [key, f"\u20ac \ud83d {key}", None],
        "large": 10**30,
    }
    masked = json.loads(mask_json(json.dumps(value, separators=(",", ":")).encode(), (Secret(key),)))
    assert 17000000.5 == masked["b"]["at"]
    assert [1, 2, 3, 4] == masked["b"]["c"]
    assert [MASK, f"\u20ac \ud83d {MASK}", None] == masked["said"]
    assert 10**30 == masked["large"]


def texts(value: Any) -> list[str]:
    """Every text in a JSON value, names too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    if isinstance(value, dict):
        return [text for name, each in value.items() for text in [name, *texts(each)]]
    return []


@given(value=JSON, keys=st.lists(KEYS, min_size=1, max_size=3), where=st.sampled_from(["value", "name", "middle"]))
def test_no_bound_key_survives_and_the_document_stays_one(value: Any, keys: list[str], where: str) -> None:
    """Whatever a key is made of and wherever it stands, it is gone from every text, and the rest is JSON still."""
    text = keys[0] if where != "middle" else f"é{keys[0]}\n"
    document = json.dumps([value, {text: 1} if where == "name" else text], separators=(",", ":")).encode()
    masked = json.loads(mask_json(document, [Secret(key) for key in keys]))
    for found in texts(masked):
        assert not any(key in found for key in keys if MASK not in key)


@given(
    before=st.text(max_size=20).filter(lambda text: not text[-1:].isalnum() or not text[-1:].isascii()),
    key=st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=16, max_size=60),
)
def test_no_known_shape_survives(before: str, key: str) -> None:
    """A key of the commonest shape goes, whatever stands before it, but for a letter or a digit."""
    assert f"sk-{key}" not in mask_text(f"{before}sk-{key} end")


CONTEXTS = [
    "Bearer {}", "key={}", "'{}'", "_{}", "-{}", ".{}", "/{}/", "{}.", "密钥是{}", "“{}”", "\n{}\n", "\t{}", "\u0000{}",
    "C:\\{}", "\\n{}", "\\\\t{}", "\\x20{}", "\\u0020{}", "%3D{}", "%22{}%22", "é{}",
]  # fmt: skip


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("key", SHAPES)
def test_known_shapes_are_masked_behind_anything_but_a_word(key: str, context: str, ensure_ascii: bool) -> None:
    """A key is found behind marks, letters of other scripts and escapes, in a text and in JSON inside JSON."""
    text = context.format(key)
    document = json.dumps({"a": text}, ensure_ascii=ensure_ascii)
    twice = json.dumps({"a": document}, ensure_ascii=ensure_ascii)
    assert context.format(MASK) == mask_text(text)
    assert {"a": context.format(MASK)} == json.loads(mask_json(document.encode()))
    assert {"a": context.format(MASK)} == json.loads(json.loads(mask_json(twice.encode()))["a"])


@given(
    word=st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=8),
    prefix=st.sampled_from(["sk-", "gsk_", "xai-", "AIza", "pplx-", "hf_", "AKIA"]),
    rest=st.text(alphabet=string.ascii_uppercase + string.digits, min_size=30, max_size=40),
    before=st.sampled_from(["", " ", "é", "/", '"', "\n", "-"]),
)
def test_words_that_end_like_a_key_begins_stay_whole(word: str, prefix: str, rest: str, before: str) -> None:
    """A kiosk, a task force and a help desk keep their names, whatever stands behind them."""
    text = f"{before}{word}{prefix}{rest}"
    assert text == mask_text(text)
    document = json.dumps({"customer": text}, ensure_ascii=False).encode()
    assert document is mask_json(document)


@pytest.mark.parametrize(
    "text",
    [
        "kiosk-550e8400-e29b-41d4-a716-446655440000",
        "task-force-logistics-gmbh",
        "helpdesk-of-the-northern-branch",
        "risk-assessment-2024-11-23-final",
    ],
)
def test_ids_of_customers_are_no_keys(text: str) -> None:
    """Names that real customers have are told apart in the logs."""
    assert text == mask_text(text)


@pytest.mark.parametrize("key", ["sk-or-v1-" + "0a" * 32, "sk-ant-api03-" + "x" * 40])
def test_a_shape_that_no_word_has_is_masked_within_words(key: str) -> None:
    """Where a vendor's prefix is beyond doubt, a key is found right behind a letter too."""
    assert f"KEY{MASK}" == mask_text(f"KEY{key}")


def test_names_that_are_known_stay_whole_but_for_the_callers_keys() -> None:
    """A customer whose name looks like a key is not merged with others; a key in a name goes all the same."""
    names = ["sk-slovakia-logistics", "x tenant-key-7 sk-of-the-second"]
    document = json.dumps({"id": names[0], "name": names[1], "said": "sk-something-that-is-a-key"}).encode()
    masked = json.loads(mask_json(document, (Secret("tenant-key-7"),), names))
    assert {"id": names[0], "name": f"x {MASK} sk-of-the-second", "said": MASK} == masked


def spelled(text: str, places: set[int], levels: int) -> str:
    """The inside of a JSON text, some characters of it as escapes; JSON in JSON where there are levels."""
    inside = "".join(
        f"\\u{ord(character):04x}" if place in places else json.dumps(character)[1:-1]
        for place, character in enumerate(text)
    )
    for _ in range(levels):
        inside = json.dumps(inside)[1:-1]
    return inside


@given(
    key=st.sampled_from(["sk-or-v1-" + "0a" * 32, "hf_" + "c3" * 17, "Zm9vYmFy/Zm9v+YmE=", "plain-secret"]),
    places=st.sets(st.integers(0, 30), min_size=1),
    levels=st.integers(0, 3),
    before=st.sampled_from(["", "ü ", "\\", '"', "a\n"]),
)
def test_escapes_hide_no_key(key: str, places: set[int], levels: int, before: str) -> None:
    """JSON may spell any character as an escape: a key is found however it is spelled, at any depth."""
    inside = spelled(before, set(), levels) + spelled(key, places, levels)
    document = f'{{"n":1e999,"said":"{inside} ü"}}'
    masked = mask_json(document.encode(), (Secret("plain-secret"), Secret("Zm9vYmFy/Zm9v+YmE="))).decode()
    assert MASK in masked
    text = json.loads(masked)["said"]
    for _ in range(levels):
        text = json.loads(f'"{text}"')
    assert key not in text
    assert text.endswith(f"{MASK} ü")
    assert masked.startswith('{"n":1e999,')


def test_an_escaped_slash_hides_no_key() -> None:
    """Some encoders write a slash with a backslash."""
    secret = Secret("Zm9v/YmFy")
    assert {"a": MASK} == json.loads(mask_json(rb'{"a":"Zm9v\/YmFy"}', (secret,)))
    assert rb'{"a":"b\/c"}' == mask_json(rb'{"a":"b\/c"}', (secret,))
    assert MASK == mask_text(r"Zm9v\/YmFy", (secret,))


def test_a_key_with_a_quote_is_found_in_json_inside_json() -> None:
    """A prompt that is logged as text has its quotes escaped twice."""
    key = 'quo"te\\back'
    document = json.dumps({"input": json.dumps([{"content": key}])}).encode()
    assert [{"content": MASK}] == json.loads(json.loads(mask_json(document, (Secret(key),)))["input"])


def test_a_key_within_a_key_is_masked_once() -> None:
    """Where a caller's key is a piece of what looks like one, what is spelled with escapes is one mask."""
    spelled_out = "sk\\u002dor-v1-aaaa-tenant-key-bbbb"
    assert f'{{"a":"{MASK}!"}}'.encode() == mask_json(
        f'{{"a":"{spelled_out}!"}}'.encode(), (Secret("sk-or-v1-aaaa-tenant-key-bbbb"), Secret("sk-or-v1-aaaa"))
    )
