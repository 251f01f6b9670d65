"""From a framework's user object to a caller: attributes, paths, methods, functions, and what is refused."""

from __future__ import annotations

import unicodedata
from enum import IntEnum, StrEnum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import Caller, UserIdentity
from kwai_middleware._inbound.user_fields import UserFields
from kwai_middleware._user_source import Unreadable
from kwai_middleware.errors import ConfigurationError


class Plan(StrEnum):
    """A text of its own type."""

    PRO = "pro"

    def __str__(self) -> str:
        return "not this"


class Number(IntEnum):
    """A number of its own type."""

    ONE = 1


class User:
    """A user with all kinds of attributes."""

    is_authenticated = True
    pk = 7
    organisation = SimpleNamespace(id=UUID(int=1), owner=None)
    empty = ""
    none = None

    def get_id(self) -> str:
        """As Flask-Login has it."""
        return "seven"

    def needs(self, argument: object) -> str:
        """A method that cannot be called without more."""
        return str(argument)

    async def get_later(self) -> str:
        """One that has to be waited for."""
        return "later"


def read(identifier: Any, user: object | None = None, **more: Any) -> Caller | None:
    """The caller whose identifier is this of a user."""
    return UserFields({"identifier": identifier, **more}).caller_of(User() if user is None else user)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("pk", "7"),
        ("get_id", "seven"),
        ("organisation.id", "00000000-0000-0000-0000-000000000001"),
        ("get_id.upper", "SEVEN"),
        (lambda user: user.pk + 1, "8"),
        (lambda user: Plan.PRO, "pro"),
        (lambda user: Number.ONE, "1"),
        (lambda user: "e\u0301", "\u00e9"),
        (lambda user: "x" * 120, "x" * 120),
        (lambda user: -(10**119) + 1, "-" + "9" * 119),
    ],
)
def test_an_identifier(attribute: Any, expected: str) -> None:
    """A name, a path, a method or a function; texts in composed form, numbers and UUIDs as texts."""
    caller = read(attribute)
    assert caller is not None
    assert (expected, str) == (caller.identifier, type(caller.identifier))


@pytest.mark.parametrize("attribute", ["none", "empty", "organisation.owner.id", lambda user: None])
def test_what_is_not_there(attribute: Any) -> None:
    """None and an empty text leave a field out; without an identifier it is nobody."""
    assert Caller(identifier="7") == read("pk", name=attribute, email=attribute, group=attribute, thread=attribute)
    assert read(attribute, email="get_id") is None


@pytest.mark.parametrize(
    ("user", "is_somebody"),
    [
        (SimpleNamespace(id=1), True),
        (SimpleNamespace(id=1, is_authenticated=True), True),
        (SimpleNamespace(id=1, is_authenticated=1), True),
        (SimpleNamespace(id=1, is_authenticated=lambda: True), True),
        (SimpleNamespace(id=1, is_authenticated=False), False),
        (SimpleNamespace(id=1, is_authenticated=None), False),
        (SimpleNamespace(id=1, is_authenticated=lambda: False), False),
    ],
)
def test_anonymous_users(user: object, is_somebody: bool) -> None:
    """Whoever says to be not authenticated is nobody, whatever else there is."""
    assert is_somebody == (read("id", user) is not None)
    assert UserFields({"identifier": "id"}).caller_of(None) is None


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("is_authenticated", r"UserIdentity\.email: expected a str, an int, a UUID or None, got bool"),
        ("organisation", "got SimpleNamespace"),
        (lambda user: b"bytes", "got bytes"),
        (lambda user: 1.5, "got float"),
        (lambda user: 10**120, "got int"),
        ("nothing", r"UserIdentity\.email: the user has no 'nothing'"),
        ("organisation.nothing", r"the user has no 'organisation\.nothing'"),
        ("get_later", "UserIdentity: email of the user is async"),
        (lambda user: "secret\n", r"UserIdentity: Caller\.email: no control characters"),
        (lambda user: "secret" * 1000, r"UserIdentity: Caller\.email: 1 to 4096 characters"),
        (lambda user: "secret\udc00", r"UserIdentity: Caller\.email: not valid Unicode"),
    ],
)
def test_what_is_refused(attribute: Any, reason: str) -> None:
    """It is said of which field, and never what stood there."""
    with pytest.raises(Unreadable, match=reason) as refused:
        read("pk", email=attribute)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None or isinstance(refused.value.__cause__, AttributeError)


def test_an_async_answer_is_nobodys_proof() -> None:
    """A coroutine is true of everybody: `is_authenticated` must not be one, nor anything else that is awaited."""

    class Later:
        def __await__(self) -> Any:
            yield

    async def later() -> bool:
        return False

    for answer in (later, Later):
        with pytest.raises(Unreadable, match="is_authenticated of the user is async"):
            read("id", SimpleNamespace(id=1, is_authenticated=answer))


def test_a_users_own_exception_passes() -> None:
    """What the user's code raises is not ours to judge here."""
    with pytest.raises(TypeError, match="argument"):
        read("needs")


@given(st.one_of(st.text(max_size=130), st.integers(), st.uuids(), st.booleans(), st.none(), st.floats()))
def test_any_value(value: Any) -> None:
    """Whatever an attribute holds becomes a caller with its composed form, nobody, or one kind of refusal."""
    try:
        caller = read("id", SimpleNamespace(id=value))
    except Unreadable:
        return
    expected = None if value is None or value == "" else unicodedata.normalize("NFC", str(value))
    assert expected == (None if caller is None else caller.identifier)


@pytest.mark.parametrize(
    "attributes",
    [
        None,
        "id",
        {},
        {"email": "email"},
        {"identifier": "id", "issuer": "x"},
        {"identifier": "id", "credentials": "key"},
        {"identifier": ""},
        {"identifier": "a b"},
        {"identifier": "organisation..id"},
        {"identifier": "id."},
        {"identifier": None},
        {"identifier": 1},
        {"identifier": str},
    ],
)
def test_wrong_attributes(attributes: Any) -> None:
    """What cannot work is refused when the app starts."""
    with pytest.raises(ConfigurationError, match=r"^UserIdentity"):
        UserIdentity(attributes)


def test_its_repr() -> None:
    """It shows what was asked for, functions by name."""

    class Named:
        def __call__(self, user: object) -> str:
            raise AssertionError

    shown = repr(UserIdentity({"identifier": "pk", "name": User.get_id, "group": Named()}))
    assert "UserIdentity({'identifier': 'pk', 'name': User.get_id, 'group': test_its_repr.<locals>.Named})" == shown
