"""A key shows itself nowhere but in `reveal`, and no encoder gets hold of it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pydantic
import pytest
import structlog
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._secret import Secret

KEY = "sk-or-v1-0123456789abcdef"


@dataclasses.dataclass
class Holder:
    """Something of an app's that has a key in it."""

    api_key: Secret


class Model(pydantic.BaseModel):
    """The same for pydantic."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    api_key: Secret


def test_reveal_gives_the_key() -> None:
    """The key comes out of `reveal` as it went in."""
    assert KEY == Secret(KEY).reveal()


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param("{}".format, id="format"),
        pytest.param("{:>20}".format, id="format-width"),
        pytest.param("{!r}".format, id="format-repr"),
        pytest.param(lambda secret: "%s %r" % (secret, secret), id="percent"),  # noqa: UP031 - it is what is tested
        pytest.param(pprint.pformat, id="pprint"),
        pytest.param(lambda secret: repr(Holder(secret)), id="dataclass"),
        pytest.param(lambda secret: repr(dataclasses.asdict(Holder(secret))), id="asdict"),
        pytest.param(lambda secret: repr(Model(api_key=secret)), id="pydantic-repr"),
        pytest.param(lambda secret: repr(Model(api_key=secret).model_dump()), id="pydantic-dump"),
        pytest.param(lambda secret: repr({secret: [secret]}), id="containers"),
        pytest.param(
            lambda secret: structlog.processors.JSONRenderer()(None, "", {"key": secret}), id="structlog-json"
        ),
        pytest.param(lambda secret: structlog.dev.ConsoleRenderer()(None, "", {"key": secret}), id="structlog-console"),
        pytest.param(lambda secret: repr(dir(secret)), id="dir"),
    ],
)
def test_what_is_shown_is_masked(show: Callable[[Secret], str]) -> None:
    """However a program shows a secret, the key is not in it."""
    shown = show(Secret(KEY))
    assert KEY not in shown
    assert KEY[9:] not in shown


def test_text_of_a_secret_is_a_mask_that_obeys_a_width() -> None:
    """A table of masked keys keeps its columns."""
    assert str(Secret(KEY)) == "****"
    assert f"{Secret(KEY):>6}" == "  ****"


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(json.dumps, id="json"),
        pytest.param(orjson.dumps, id="orjson"),
        pytest.param(msgspec.json.encode, id="msgspec-json"),
        pytest.param(msgspec.msgpack.encode, id="msgspec-msgpack"),
        pytest.param(msgspec.to_builtins, id="msgspec-builtins"),
        pytest.param(pydantic.TypeAdapter(Any).dump_json, id="pydantic"),
        pytest.param(lambda secret: Model(api_key=secret).model_dump_json(), id="pydantic-model"),
        pytest.param(jsonable_encoder, id="fastapi"),
        pytest.param(lambda secret: jsonable_encoder(Holder(secret)), id="fastapi-dataclass"),
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(lambda secret: pickle.dumps(secret, protocol=0), id="pickle-0"),
        pytest.param(lambda secret: pickle.dumps(Holder(secret)), id="pickle-holder"),
        pytest.param(lambda secret: secret.__getstate__(), id="getstate"),
        pytest.param(vars, id="vars"),
        pytest.param(dict, id="dict"),
        pytest.param(list, id="list"),
        pytest.param(bytes, id="bytes"),
        pytest.param(len, id="len"),
    ],
)
def test_what_would_take_the_key_out_fails(encode: Callable[[Secret], object]) -> None:
    """An encoder can only fail on a secret, and what it says does not hold the key."""
    with pytest.raises((TypeError, ValueError)) as caught:
        encode(Secret(KEY))
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert KEY not in told.replace(f'KEY = "{KEY}"', "")


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, lambda secret: copy.deepcopy([secret])[0]])
def test_a_copy_is_the_secret_itself(make_copy: Callable[[Secret], Secret]) -> None:
    """Copying what holds a secret works, and makes no second one."""
    secret = Secret(KEY)
    assert secret is make_copy(secret)


def test_it_has_nothing_to_look_into() -> None:
    """There is no `__dict__` for an encoder to find."""
    assert not hasattr(Secret(KEY), "__dict__")
    assert not isinstance(Secret(KEY), str)


def test_equality_and_hash_go_by_the_key() -> None:
    """Two secrets of one key are equal and one entry of a set; a text is never equal to a secret."""
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret(KEY + "0")
    assert len({Secret(KEY), Secret(KEY), Secret(KEY + "0")}) == 2
    assert Secret(KEY) != KEY
    assert hash(Secret(KEY)) != hash(KEY)


def test_fingerprint_is_short_and_steady() -> None:
    """People can tell keys apart by eight digits, which are the same in every process."""
    assert Secret("sk-or-v1-example").fingerprint == "2403a800"
    assert "2403a800" in repr(Secret("sk-or-v1-example"))


def test_it_cannot_be_changed() -> None:
    """Neither setting nor deleting an attribute works."""
    secret = Secret(KEY)
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(AttributeError):
        del secret._value
    with pytest.raises(AttributeError):
        secret.other = "other"  # type: ignore[attr-defined]  # what is tested
    assert KEY == secret.reveal()


@pytest.mark.parametrize("value", [b"sk-or-v1-bytes", None, 5, Secret(KEY)])
def test_only_a_text_is_taken(value: Any) -> None:
    """Anything but a str is a TypeError that names the type only."""
    with pytest.raises(TypeError, match=f"got {type(value).__name__}$"):
        Secret(value)


@given(st.text())
def test_any_text_is_a_secret_or_a_value_error_without_it(text: str) -> None:
    """Visible ASCII is accepted, all else is refused, and the message does not quote it."""
    is_fit = len(text) > 0 and all("!" <= character <= "~" for character in text)
    try:
        assert text == Secret(text).reveal()
    except ValueError as error:
        assert not is_fit
        assert len(text) < 4 or text not in str(error)
    else:
        assert is_fit


def test_a_key_of_a_subclass_is_a_plain_text() -> None:
    """What is revealed is a `str` and nothing more clever."""

    class Text(str):
        def __str__(self) -> str:
            return "shown otherwise"

    assert "sk-1" == Secret(Text("sk-1")).reveal()
    assert str is type(Secret(Text("sk-1")).reveal())
