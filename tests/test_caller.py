"""Who a caller may be, and that nothing changes it afterwards."""

from __future__ import annotations

import copy
import math
from typing import Any

import msgspec
import pytest

from kwai_middleware._caller import MAX_IDENTIFIER, TEXT_LIMITS, Caller, Credential
from kwai_middleware._secret import Secret

KEY = Secret("sk-or-v1-0123456789abcdef")
TEXTS = ("identifier", "name", "email", "group", "thread")


def test_a_caller_is_nobody_in_particular_by_default() -> None:
    """Every field has a default, and none of them says anything."""
    caller = Caller()
    assert [None] * 5 == [getattr(caller, field) for field in TEXTS]
    assert {} == dict(caller.metadata)
    assert () == caller.credentials
    assert (None, None) == (caller.byok, caller.capture)


@pytest.mark.parametrize("field", TEXTS)
def test_a_text_may_be_as_long_as_its_limit(field: str) -> None:
    """The longest text is taken as it is, one more character is refused."""
    limit = TEXT_LIMITS[field]
    assert "ü" * limit == getattr(Caller(**{field: "ü" * limit}), field)
    with pytest.raises(ValueError, match=f"Caller.{field}: 1 to {limit} characters"):
        Caller(**{field: "ü" * (limit + 1)})


def test_identifiers_are_at_most_what_the_older_vendor_type_takes() -> None:
    """The limit of an identifier is 120 characters."""
    assert MAX_IDENTIFIER == 120
    assert TEXT_LIMITS["identifier"] == 120


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("text", ["", "a\nb", "a\x00", "\x7f", "\x85", "\udc80"], ids=ascii)
def test_a_text_that_could_harm_a_log_is_refused(field: str, text: str) -> None:
    """Empty texts, control characters and lone surrogates are refused; the message does not quote them."""
    with pytest.raises(ValueError, match=f"^Caller.{field}: ") as caught:
        Caller(**{field: text})
    assert text == "" or text not in str(caught.value)


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("value", [5, b"acme", ["acme"], True])
def test_a_text_of_another_type_is_refused(field: str, value: Any) -> None:
    """An identifier that is a number is a TypeError and not a guess."""
    with pytest.raises(TypeError, match=f"^Caller.{field}: expected a str or None, got {type(value).__name__}$"):
        Caller(**{field: value})


def test_harmless_format_characters_are_let_through() -> None:
    """Not printable is not the same as a control character: a joined emoji is a name."""
    assert "👩‍🚀 Ada\u00a0L" == Caller(name="👩‍🚀 Ada\u00a0L").name


def test_metadata_is_a_copy_that_cannot_be_changed() -> None:
    """Changing the mapping it was made from changes nothing, and it has no way to change itself."""
    plan = {"plan": "pro", "seats": 5, "share": 0.5, "trial": False}
    caller = Caller(metadata=plan)
    plan["plan"] = "free"
    assert {"plan": "pro", "seats": 5, "share": 0.5, "trial": False} == dict(caller.metadata)
    with pytest.raises(TypeError):
        caller.metadata["plan"] = "free"  # type: ignore[index]  # what is tested


@pytest.mark.parametrize("metadata", [[("a", 1)], {1: "a"}, {"a": None}, {"a": ["b"]}, {"a": KEY}, None])
def test_metadata_of_another_shape_is_refused(metadata: Any) -> None:
    """Only plain values under text keys are taken."""
    with pytest.raises(TypeError, match=r"^Caller.metadata: "):
        Caller(metadata=metadata)


def test_credentials_become_a_tuple() -> None:
    """A list of keys, also an empty one, cannot be changed from outside afterwards."""
    keys = [Credential(api_key=KEY)]
    caller = Caller(credentials=keys)  # type: ignore[arg-type]  # what is tested
    keys.clear()
    assert (Credential(api_key=KEY),) == caller.credentials
    empty: Any = []
    assert () == Caller(credentials=empty).credentials


@pytest.mark.parametrize("credentials", [[KEY], ["sk-or-v1-text"], [None], None, 5])
def test_credentials_of_another_type_are_refused(credentials: Any) -> None:
    """A key that is not a `Credential` is a TypeError that does not show it."""
    with pytest.raises(TypeError) as caught:
        Caller(credentials=credentials)
    assert "sk-or" not in str(caught.value)


@pytest.mark.parametrize("field", ["byok", "capture"])
def test_an_unknown_choice_is_refused(field: str) -> None:
    """A choice that is misspelled is refused, and the message lists what is allowed."""
    with pytest.raises(ValueError, match=f"^Caller.{field}: one of '"):
        Caller(**{field: "sometimes"})


@pytest.mark.parametrize(("field", "choice"), [("byok", "only"), ("byok", "off"), ("capture", "none")])
def test_a_known_choice_is_kept(field: str, choice: str) -> None:
    """What is allowed is taken as it is."""
    assert choice == getattr(Caller(**{field: choice}), field)


def test_with_credentials_changes_the_keys_only() -> None:
    """The same caller with other keys is a new object; the first one keeps its own."""
    caller = Caller(identifier="acme", group="g", metadata={"a": 1}, byok="only")
    twin = caller.with_credentials((Credential(api_key=KEY),))
    assert Caller(identifier="acme", group="g", metadata={"a": 1}, byok="only", credentials=twin.credentials) == twin
    assert (Credential(api_key=KEY),) == twin.credentials
    assert () == caller.credentials
    with pytest.raises(TypeError, match=r"^Caller.credentials: "):
        caller.with_credentials(("sk-or-v1-text",))  # type: ignore[arg-type]  # what is tested


def test_it_cannot_be_changed() -> None:
    """Neither a caller nor a credential lets a field be set."""
    caller, credential = Caller(identifier="acme"), Credential(api_key=KEY)
    with pytest.raises(AttributeError):
        caller.identifier = "other"  # type: ignore[misc]  # what is tested
    with pytest.raises(AttributeError):
        credential.provider = "other"  # type: ignore[misc]  # what is tested


def test_a_deep_copy_is_the_caller_itself() -> None:
    """What copies a request deeply is not stopped by the caller in it."""
    caller = Caller(identifier="acme", metadata={"a": 1}, credentials=(Credential(api_key=KEY),))
    assert caller is copy.deepcopy({"caller": caller})["caller"]


def test_repr_masks_the_key() -> None:
    """A caller can be logged."""
    assert KEY.reveal() not in repr(Caller(credentials=(Credential(api_key=KEY),)))


@pytest.mark.parametrize("key", ["sk-or-v1-text", None, b"sk-or-v1-bytes"])
def test_a_plain_key_is_refused(key: Any) -> None:
    """A key that could be shown in a log is not taken, and not quoted."""
    with pytest.raises(TypeError, match=r"^Credential.api_key: expected kwai_middleware.Secret") as caught:
        Credential(api_key=key)
    assert "sk-or" not in str(caught.value)


@pytest.mark.parametrize("provider", ["openrouter", "azure_openai", "a", "x.y-z_9", "a" * 64])
def test_a_provider_is_a_short_plain_name(provider: str) -> None:
    """The names that the vendor uses are accepted."""
    assert provider == Credential(api_key=KEY, provider=provider).provider


@pytest.mark.parametrize("provider", ["", "OpenRouter", "a b", "-a", "a" * 65, "ä", 'a"', None, 5, ["openrouter"]])
def test_a_strange_provider_is_refused(provider: Any) -> None:
    """What could break a header or a body is no provider, of whatever type it is."""
    with pytest.raises(ValueError, match=r"^Credential.provider: "):
        Credential(api_key=KEY, provider=provider)


@pytest.mark.parametrize("weight", [1, 1.0, 0.1, 1e9])
def test_a_weight_is_a_number_above_zero(weight: float) -> None:
    """Whole and broken numbers are weights."""
    assert weight == Credential(api_key=KEY, weight=weight).weight


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan, "1", None])
def test_another_weight_is_refused(weight: Any) -> None:
    """A weight that could never be drawn by is refused."""
    with pytest.raises(ValueError, match=r"^Credential.weight: "):
        Credential(api_key=KEY, weight=weight)


class _Text(str):
    def __str__(self) -> str:
        return "shown otherwise"


class _Whole(int):
    pass


class _Number(float):
    pass


def test_values_of_subclasses_become_plain_ones() -> None:
    """A `Markup` or a number of numpy is taken as what it is, and every encoder takes it from there."""
    caller = Caller(
        identifier=_Text("acme"),
        name=_Text("Acme"),
        metadata={_Text("plan"): _Text("pro"), "seats": _Whole(3), "share": _Number(0.5), "trial": True},
    )
    assert ("acme", "Acme") == (caller.identifier, caller.name)
    assert {"plan": "pro", "seats": 3, "share": 0.5, "trial": True} == dict(caller.metadata)
    values = [caller.identifier, caller.name, *caller.metadata, *caller.metadata.values()]
    assert {str, int, float, bool} == {type(value) for value in values}
    assert b'{"plan":"pro","seats":3,"share":0.5,"trial":true}' == msgspec.json.encode(dict(caller.metadata))


@pytest.mark.parametrize("metadata", [{"a": "\ud800"}, {"\ud800": "a"}])
def test_metadata_is_valid_unicode(metadata: Any) -> None:
    """Half a character cannot be written into a request."""
    with pytest.raises(ValueError, match="metadata: not valid Unicode"):
        Caller(metadata=metadata)
