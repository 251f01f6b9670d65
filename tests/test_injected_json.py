"""What is put into a JSON body, byte for byte and as every parser reads it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.json_members import read_object, spliced

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_names = st.text(max_size=8) | st.sampled_from(["customer_credentials", "customer_params", "model"])
_blanks = st.text(alphabet=" \n\r\t", max_size=3)


@given(
    body=st.dictionaries(_names, _json_values, max_size=6),
    before=_blanks,
    after=_blanks,
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    changes=st.dictionaries(_names, st.none() | _json_values.map(lambda value: json.dumps(value).encode()), max_size=3),
)
def test_splicing_changes_what_it_should_and_nothing_else(
    body: dict[str, Any],
    before: str,
    after: str,
    indent: int | None,
    ascii_only: bool,
    changes: dict[str, bytes | None],
) -> None:
    """For every body and every change: all parsers read the same, as if a dict had been updated."""
    try:
        data = (before + json.dumps(body, indent=indent, ensure_ascii=ascii_only) + after).encode()
    except UnicodeEncodeError:
        return
    read = read_object(data)
    assert read is not None
    data, members = read
    expected = {**body, **{name: None if value is None else json.loads(value) for name, value in changes.items()}}
    for name, value in changes.items():
        if value is None:
            del expected[name]
    spliced_body = b"".join(spliced(data, members, changes))
    pairs = json.loads(spliced_body, object_pairs_hook=lambda pairs: pairs)
    assert expected == json.loads(spliced_body)
    assert len(expected) == len(pairs)


def test_a_large_body_is_not_copied() -> None:
    """Its head goes out as a view on the app's own bytes."""
    body = json.dumps({"messages": "x" * 1_000_000}).encode()
    read = read_object(body)
    assert read is not None
    assert read[0] is body
    head, tail = spliced(*read, {"a": b"1"})
    assert isinstance(head, memoryview)
    assert head.obj is body
    assert b',"a":1}' == tail
