"""The sandbox's reader of forms: what HTTP clients send is read as it was meant, all else is no form."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware.sandbox.forms import Form, form_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="[]", exclude_categories=["Cc"]), min_size=1)
TEXTS = st.text(st.characters(codec="utf-8")).filter(lambda text: text[:1] not in ("{", "["))


@given(fields=st.dictionaries(NAMES.filter(str.isalnum), TEXTS, max_size=4), content=st.binary(max_size=200))
def test_what_a_client_sends_is_read_as_it_was(fields: dict[str, str], content: bytes) -> None:
    """Names, texts and bytes of any kind come back the same."""
    request = httpx.Request("POST", "http://any", data=fields, files={"the file": ("a.wav", content)})
    form = form_of(request.headers["content-type"], request.read())
    assert form
    assert (list(fields.items()), {"the file": content}) == (form.fields, form.files)
    assert (fields, fields) == (form.members(), json.loads(form.as_json()))


@pytest.mark.parametrize(
    ("fields", "members", "text"),
    [
        ([("a", '{"b": [1]}')], {"a": {"b": [1]}}, b'{"a":{"b":[1]}}'),
        ([("a", "{no JSON")], {"a": "{no JSON"}, b'{"a":"{no JSON"}'),
        ([("a[b][c]", "1"), ("a[b][d]", "2")], {"a": {"b": {"c": "1", "d": "2"}}}, None),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}, b'{"a":["1"],"a":["2"]}'),
        ([("a", "1"), ("a", "2")], {"a": "2"}, b'{"a":"1","a":"2"}'),
        ([("a[b", "1"), ("[b]", "2"), ("a]b", "3")], {"a[b": "1", "[b]": "2", "a]b": "3"}, None),
        ([], {}, b"{}"),
    ],
)
def test_fields_stand_for_json(fields: list[tuple[str, str]], members: dict[str, object], text: bytes | None) -> None:
    """JSON and brackets nest; doubled fields stay doubled in the text, which shows all that any reader could take."""
    form = Form(fields)
    assert members == form.members()
    assert text is None or text == form.as_json()


PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
KIND = "multipart/form-data; boundary=b"


def test_one_part_is_a_form() -> None:
    """The smallest one there is, with a boundary in quotes and anything but a part behind it."""
    for kind in (KIND, 'Multipart/Form-Data; Boundary="b"'):
        form = form_of(kind, PART + b"--b--\r\n")
        assert form
        assert [("a", "1")] == form.fields


def test_a_file_name_may_be_written_in_the_other_way() -> None:
    """`filename*` makes a part a file too."""
    part = b"--b\r\ncontent-disposition: form-data; name=a; filename*=UTF-8''%C3%B6.wav\r\n\r\n1\r\n--b--"
    form = form_of(KIND, part)
    assert form
    assert ({"a": b"1"}, {"a": "(1 bytes)"}) == (form.files, form.described())


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, PART + b"--b--"),
        ("application/json", PART + b"--b--"),
        ("multipart/form-data", PART + b"--b--"),
        (KIND, b""),
        (KIND, b"--b--"),
        (KIND, PART),
        (KIND, PART + b"--b"),
        (KIND, b"before\r\n" + PART + b"--b--"),
        (KIND, PART + b"--b--\r\nbehind"),
        (KIND, b"--b\r\nno end of head\r\n--b--"),
        (KIND, b"--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--"),
        (KIND, b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--"),
        (KIND, b'--b\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n--b--'),
        (KIND, PART * 1001 + b"--b--"),
    ],
)
def test_everything_else_is_no_form(kind: str | None, body: bytes) -> None:
    """A body that is not whole, and a part without a name, are nothing that could be answered."""
    assert form_of(kind, body) is None
