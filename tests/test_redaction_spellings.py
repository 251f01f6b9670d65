"""A caller's own key is found in each form in which programs write it down."""

from __future__ import annotations

import base64
import contextlib
import json
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._redaction import MASK, Keys, mask_json, mask_text
from kwai_middleware._secret import Secret
from tests.support.vendor_logs import call_with

VISIBLE = [chr(code) for code in range(33, 127) if chr(code) != "*"]
"""Without the mask's own character: what is masked would look like the key."""

KEYS = st.text(VISIBLE, min_size=8, max_size=200) | st.text('"\\/%+=', min_size=8, max_size=20)
SAMPLES = [
    "sk-or-v1-" + "0a" * 32,
    "correct-horse",
    'quo"te\\back/slash%41+plus=',
    "~~~???>>>///",
    "%41%42%43%44%45%46%47%48",
    "\\u0041\\u0042\\u0043",
]
Form = Callable[[str], str]


def every_character(text: str) -> str:
    """Percent-encode what need not be, too, in small letters."""
    return "".join(f"%{ord(character):02x}" for character in text)


def hexed(text: str) -> str:
    """JSON in which every character is an escape."""
    return "".join(f"\\u{ord(character):04X}" for character in text)


def inside_json(text: str) -> str:
    return json.dumps({"api_key": text})


def as_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def as_url_safe_base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FORMS: dict[str, Form] = {
    "as it is": str,
    "in JSON": inside_json,
    "in JSON in JSON": lambda text: inside_json(inside_json(text)),
    "in JSON as escapes": hexed,
    "in JSON of PHP": lambda text: inside_json(text).replace("/", r"\/"),
    "in a URL": lambda text: f"https://x.example/?key={quote(text, safe='')}&a=1",
    "in a URL, small": lambda text: quote(text, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
    "in a path": quote,
    "in a form": quote_plus,
    "all of it percent-encoded": every_character,
    "encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "all of it encoded twice": lambda text: quote(every_character(text), safe=""),
    "in JSON in a URL": lambda text: quote(inside_json(text)),
    "in a URL in JSON as escapes": lambda text: hexed(quote(text, safe="")),
    "in base64": as_base64,
    "in URL-safe base64": as_url_safe_base64,
    "as a password": lambda text: f"Basic {as_base64(f'user:{text}')}",
    "as a name": lambda text: f"Basic {as_base64(f'{text}:')}",
    "in the vendor's header": lambda text: as_base64(json.dumps({"customer_credentials": {"x": {"api_key": text}}})),
    "in JSON in JSON in base64": lambda text: as_base64(inside_json(inside_json(text))),
    "in a URL in base64": lambda text: as_url_safe_base64(f"https://x.example/?key={quote(text, safe='')}"),
    "in base64 in a URL": lambda text: f"https://x.example/?params={quote(as_base64(inside_json(text)), safe='')}",
    "in base64 in JSON of PHP": lambda text: inside_json(as_base64(text)).replace("/", r"\/"),
}  # fmt: skip


def left_in(text: str, key: str) -> bool:
    """Say whether a reader finds the key in a text: by undoing escapes, or in any piece of base64."""
    seen: set[str] = set()
    waiting = [text]
    while waiting:
        found = waiting.pop(0)
        if key in found:
            return True
        if found in seen or len(seen) > 60:
            continue
        seen.add(found)
        waiting += [unquote(found), unescaped(found)]
        pieces = "".join(c if c in string.ascii_letters + string.digits + "+/-_" else " " for c in found).split()
        for piece in pieces:
            standard = piece.translate(str.maketrans("-_", "+/"))
            for start in range(4):
                whole = standard[start : start + (len(standard) - start) // 4 * 4]
                for offered in (whole, standard[start:] + "=" * (-len(standard[start:]) % 4)):
                    try:
                        waiting.append(base64.b64decode(offered).decode("latin-1"))
                    except ValueError:
                        continue
    return False


def unescaped(text: str) -> str:
    """Undo one level of JSON's escapes, as far as there are any."""
    result, position = [], 0
    while position < len(text):
        if text[position] == "\\" and text[position + 1 : position + 2] == "u":
            with contextlib.suppress(ValueError):
                result.append(chr(int(text[position + 2 : position + 6], 16)))
            position += 6
        elif text[position] == "\\":
            result.append(text[position + 1 : position + 2])
            position += 2
        else:
            result.append(text[position])
            position += 1
    return "".join(result)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", SAMPLES)
def test_the_search_of_these_tests_finds_keys(key: str, form: str) -> None:
    """What the other tests rely on: a key that is not masked is found, in every form."""
    assert left_in(f"before {FORMS[form](key)} after", key)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", SAMPLES)
def test_a_key_is_masked_in_every_form(key: str, form: str) -> None:
    """What programs make of a key on its way into a text hides it from nobody, so it is masked."""
    text = f"before {FORMS[form](key)} after"
    masked = mask_text(text, (Secret(key),))
    assert MASK in masked
    assert not left_in(masked, key)
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@given(key=KEYS, form=st.sampled_from(sorted(FORMS)), before=st.text(max_size=12), after=st.text(max_size=12))
@example(key="41bcdefg=", form="in a URL", before="%", after="")
def test_no_key_is_left_in_any_form(key: str, form: str, before: str, after: str) -> None:
    """Whatever a key is made of and whatever stands around it, nothing of any form of it can be read any more."""
    assume(not left_in(before + after, key))
    form_of_key = FORMS[form](key)
    assert left_in(form_of_key, key)
    assert not left_in(mask_text(f"{before} {form_of_key} {after}", (Secret(key),)), key)
    document = json.dumps({"said": f"{before}{form_of_key}{after}", "n": [1.5, None]}, ensure_ascii=False)
    masked = mask_json(document.encode("utf-8", "replace"), (Secret(key),))
    assert [1.5, None] == json.loads(masked)["n"]
    assert not left_in(json.loads(masked)["said"], key)


@given(
    key=st.text([c for c in VISIBLE if c != "%"], min_size=8, max_size=40),
    chosen=st.sets(st.integers(0, 39)),
    small=st.booleans(),
    twice=st.booleans(),
)
def test_any_characters_of_a_key_may_be_percent_encoded(key: str, chosen: set[int], small: bool, twice: bool) -> None:
    """Programs differ in what they encode: all of it, what is reserved, or a single character."""
    encoded = "".join(
        (f"%{ord(character):02x}" if small else f"%{ord(character):02X}") if place in chosen else character
        for place, character in enumerate(key)
    )
    encoded = encoded.replace("%", "%25") if twice else encoded
    assert f"?a={MASK}&b" == mask_text(f"?a={encoded}&b", (Secret(key),))


@given(
    key=st.text(VISIBLE, min_size=8, max_size=60),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    url_safe=st.booleans(),
    padded=st.booleans(),
)
def test_a_key_anywhere_in_base64_is_masked(
    key: str, before: bytes, after: bytes, url_safe: bool, padded: bool
) -> None:
    """Wherever the key begins in what was encoded, the characters that hold its bits go, and no others."""
    encode_bytes = base64.urlsafe_b64encode if url_safe else base64.b64encode
    whole = before + key.encode() + after
    encoded = encode_bytes(whole).decode()
    encoded = encoded if padded else encoded.rstrip("=")
    assume(key not in encoded)
    # A key such as 00000000 may stand in it twice.
    assume(whole.find(key.encode()) == whole.rfind(key.encode()))
    first, last = 8 * len(before) // 6, -(-8 * (len(before) + len(key)) // 6)
    assert encoded[:first] + MASK + encoded[last:] == mask_text(encoded, (Secret(key),))


def test_text_in_which_a_key_could_stand_is_left_alone() -> None:
    """Escapes and base64 without a key in them stay as they are, the very same object."""
    secrets = (Secret("correct-horse"), Secret("battery+staple/=="))
    for text in (
        "100 % of it %41%42 %2541 \\u0041 \\/ \\\\", f"Basic {as_base64('user:password-of-another')}",
        "https://x.example/?q=%22a%20b%22&key=another", "correct%2Dhors", "correct%2-horse",
    ):  # fmt: skip
        assert text is mask_text(text, secrets)
        document = json.dumps([text]).encode()
        assert document is mask_json(document, secrets)


@pytest.mark.parametrize("name", ["sk%2dslovakia-logistics-gmbh", "sk\\u002dslovakia-logistics-gmbh"])
def test_names_that_are_known_stay_whole_with_their_escapes(name: str) -> None:
    """A customer whose name would look like a key, once its escapes were undone, is not merged with others."""
    assert name == mask_text(name, (), [name])
    document = json.dumps({"id": name}).encode()
    assert document is mask_json(document, (), [name])


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ('","model":"', '{"id":"","model":"m"}'),
        ('","model":"', '{"id":"","\\u006dodel":"m"}'),
        ('","model":"', '{"id":"","mode%6c":"m"}'),
        ("17000000", '{"at":17000000.5,"id":"x"}'),
        ("nabcdefgh", '{"text":"line\\nabcdefgh"}'),
        ('defghijk\\"', '{"text":"x defghijk\\\\"}'),
    ],
)
def test_no_key_changes_the_structure_of_a_document(key: str, document: str) -> None:
    """A caller cannot take members out of their own records by sending a key that looks like JSON."""
    masked = json.loads(mask_json(document.encode(), (Secret(key),)))
    assert list(json.loads(document)) == list(masked)
    assert len(json.loads(document)) == len(masked)


def test_what_is_no_json_within_json_is_masked_all_the_same() -> None:
    """An escape that JSON does not know, in what nobody has looked into, stops no masking."""
    document = b'{"id":"","model":"\\q my-own-key"}'
    masked = mask_json(document, (Secret('","model":"'), Secret("my-own-key")))
    assert b'{"id":"","model":"\\q ****"}' == masked


def test_keys_are_looked_for_in_many_texts() -> None:
    """What is made ready once serves any number of texts, and shows no key."""
    keys = Keys([Secret("my-own-key"), Secret("short")])
    assert ["a ****", "b ****", "short", ""] == [
        mask_text(text, keys) for text in ("a my-own-key", f"b {quote('my-own-key')}", "short", "")
    ]
    assert "my-own-key" not in f"{keys!r}{keys}"
    assert keys is Keys.of(keys)


PLACES: dict[str, Callable[[str], dict[str, object]]] = {
    "prompt": lambda text: {"messages": json.dumps([{"role": "user", "content": text}]).encode()},
    "prompt in parts": lambda text: {
        "messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": text}]}]).encode()
    },
    "prompt that is no JSON": lambda text: {"messages": f"[{text}".encode("utf-8", "replace")},
    "answer": lambda text: {"completions": ({"role": "assistant", "content": text},)},
    "several answers": lambda text: {"completions": ({"content": "a"}, {"content": text, "x": [text]})},
    "tool's arguments": lambda text: {
        "completions": (
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": json.dumps({"url": text})}}],
            },
        )
    },
    "error": lambda text: {"outcome": "error", "error_message": text, "error_code": text},
    "parameter": lambda text: {"parameters": {"stop": json.dumps(text).encode()}},
    "parameter of another kind": lambda text: {"parameters": {"user": json.dumps({"a": text}).encode()}},
    "caller": lambda text: {"caller": Caller(identifier="acme", metadata={"note": text})},
    "model": lambda text: {"model": text, "provider": text, "generation_id": text},
}


@given(
    key=KEYS,
    form=st.sampled_from(sorted(FORMS)),
    place=st.sampled_from(sorted(PLACES)),
    before=st.text(st.characters(codec="utf-8"), max_size=12),
    after=st.text(st.characters(codec="utf-8"), max_size=12),
)
def test_no_key_leaves_in_a_record(key: str, form: str, place: str, before: str, after: str) -> None:
    """Wherever a key of the caller's got into a call, in whatever form, it is in no text of the record."""
    assume(not left_in(before + after, key))
    text = f"{before} {FORMS[form](key)} {after}"
    body = encode(call_with(**PLACES[place](text)), (Secret(key),))
    for found in texts(json.loads(body)):
        assert not left_in(found, key)


def texts(value: object) -> list[str]:
    """Every text in a JSON value, names too, and in JSON inside texts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    if isinstance(value, dict):
        return [text for name, each in value.items() for text in [name, *texts(each)]]
    return []
