"""References: a caller without its keys as a text for task queues, and nobody else's."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _reference
from kwai_middleware._caller import Caller
from kwai_middleware._context import Binding, current_caller
from kwai_middleware._reference import bind_reference
from kwai_middleware._secret import Secret
from kwai_middleware._signing import REFERENCE_SECRETS
from kwai_middleware.errors import ConfigurationError, InvalidReference
from kwai_middleware.signed_identity import SignedIdentity
from kwai_middleware.testing import Canary

OLD, NEW = "old-secret-0123456789-0123456789", "new-secret-0123456789-0123456789"
NOW = 1_800_000_000.0
ACME = Caller(
    identifier="acme", name="Ada, Zürich", email="ada@acme.example", group="holding", thread="t-1", issuer="accounts",
    metadata={"plan": "pro", "seats": 5, "share": 0.5, "trial": False}, byok="only", capture="metadata",
)  # fmt: skip


def made(caller: Caller = ACME, *secrets: str | Secret, **options: Any) -> str:
    """A reference that was made now."""
    return caller.reference(secrets=secrets or (NEW,), clock=lambda: NOW, **options)


def opened(reference: Any, *secrets: str | Secret, later: float = 0) -> Caller | None:
    """Who is bound by a reference."""
    with bind_reference(reference, secrets=secrets or (NEW,), clock=lambda: NOW + later):
        return current_caller()


def is_refused(reference: Any, reason: str = "forged or damaged", **options: Any) -> None:
    """Assert that nobody is bound, for a reason, without a value in it."""
    with pytest.raises(InvalidReference, match=reason) as caught:
        opened(reference, **options)
    assert "acme" not in str(caught.value)
    assert not isinstance(reference, str) or len(reference) < 20 or reference[-20:] not in str(caught.value)
    assert current_caller() is None


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment without secrets, until the test puts some there."""
    monkeypatch.delenv(REFERENCE_SECRETS, raising=False)
    return monkeypatch


def test_the_caller_is_bound_as_it_was() -> None:
    """All of it but its keys arrives, and is bound for the block only, as bind_caller binds."""
    binding = bind_reference(made(), secrets=[NEW], clock=lambda: NOW)
    assert isinstance(binding, Binding)
    assert current_caller() is None
    with binding:
        assert current_caller() == ACME
    assert current_caller() is None
    assert Caller() == opened(made(Caller()))


def test_a_reference_fits_anywhere() -> None:
    """It is URL-safe ASCII, whatever the caller is called."""
    reference = made(Caller(name="Ада 👩‍🚀", metadata={"ключ": "\u2028\n"}))
    assert reference.isascii()
    assert reference.replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_it_has_no_key() -> None:
    """The caller's key is not in a reference in any spelling, and not in what is bound by it."""
    canary = Canary()
    caller = canary.caller("acme")
    reference = made(caller)
    payload = reference.split(".")[1]
    content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert [] == canary.check("the reference", reference)
    assert {"caller": {"identifier": "acme"}, "until": NOW + 86400} == content
    assert Caller(identifier="acme") == opened(reference)
    assert 1 == len(caller.credentials)


def test_secrets_are_changed_without_losing_a_task() -> None:
    """The first secret signs, each verifies."""
    assert ACME == opened(made(ACME, OLD), NEW, OLD)
    assert ACME == opened(made(ACME, NEW, OLD), Secret(NEW))
    with pytest.raises(InvalidReference):
        opened(made(ACME, OLD), NEW)
    with pytest.raises(InvalidReference):
        opened(made(ACME, OLD, NEW), NEW)


@pytest.mark.parametrize("secrets", [(), "x" * 40, ["short"], [NEW, NEW], [5]], ids=repr)
def test_secrets_are_checked_where_they_are_given(secrets: Any) -> None:
    """What protects nothing is an error on both sides."""
    with pytest.raises(ConfigurationError, match=r"^Caller.reference: secrets: "):
        ACME.reference(secrets=secrets)
    with pytest.raises(ConfigurationError, match=r"^bind_reference: secrets: "):
        bind_reference(made(), secrets=secrets)


def test_secrets_come_from_the_environment_at_the_call(environment: pytest.MonkeyPatch) -> None:
    """Without `secrets` those of the variable count, as they are now; blanks around them are none of them."""
    environment.setenv(REFERENCE_SECRETS, OLD)
    reference = ACME.reference()
    environment.setenv(REFERENCE_SECRETS, f" {NEW} , {OLD}\n")
    with bind_reference(reference):
        assert current_caller() == ACME
    reference = ACME.reference()
    assert ACME == opened(reference, NEW, later=-1e9)
    environment.setenv(REFERENCE_SECRETS, OLD)
    with pytest.raises(InvalidReference):
        bind_reference(reference)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_secrets_it_says_what_to_do(environment: pytest.MonkeyPatch, value: str | None) -> None:
    """The error names the variable, where it has to be set, and a command that makes a secret."""
    if value is not None:
        environment.setenv(REFERENCE_SECRETS, value)
    for function in (ACME.reference, lambda: bind_reference(made())):
        with pytest.raises(ConfigurationError, match="set KWAI_REFERENCE_SECRETS") as caught:
            function()
        assert "token_urlsafe" in str(caught.value)
        assert "secrets=[...]" in str(caught.value)


@pytest.mark.parametrize("value", ["short", f"{NEW},", f"{NEW},{NEW}", f"{NEW},with a blank-0123456789-0123456789"])
def test_a_variable_with_a_bad_secret_is_refused(environment: pytest.MonkeyPatch, value: str) -> None:
    """The error names the variable and shows nothing of it."""
    environment.setenv(REFERENCE_SECRETS, value)
    with pytest.raises(ConfigurationError, match=r"^KWAI_REFERENCE_SECRETS: ") as caught:
        ACME.reference()
    assert "0123456789" not in str(caught.value)


def test_it_expires() -> None:
    """It is good until its time is over and not a moment longer, on whichever day it was made."""
    assert ACME == opened(made(), later=86399)
    is_refused(made(), "expired", later=86400)
    assert ACME == opened(made(max_age=5), later=4.9)
    is_refused(made(max_age=5), "expired", later=5)
    assert ACME == opened(made(max_age=10**9), later=10**8)


@pytest.mark.parametrize("max_age", [0, -1, math.inf, math.nan, True, "60", None])
def test_it_always_expires(max_age: Any) -> None:
    """A reference for ever, or for no time, is not made."""
    with pytest.raises(ConfigurationError, match=r"^Caller.reference: max_age: "):
        made(max_age=max_age)


def test_no_part_of_a_reference_holds() -> None:
    """Cut anywhere, it is refused."""
    reference = made()
    for length in range(len(reference)):
        is_refused(reference[:length])


def test_no_bit_of_a_reference_can_be_changed() -> None:
    """Whichever bit is flipped, it is refused."""
    reference = made().encode()
    for index in range(len(reference)):
        for bit in range(8):
            changed = bytes([*reference[:index], reference[index] ^ (1 << bit), *reference[index + 1 :]])
            is_refused(changed.decode("latin-1"))


@pytest.mark.parametrize(
    "reference",
    [None, 5, b"kwai-reference-1", ["a"], {}, "", ".", "..", "kwai-reference-1..", "\udc80", "acme"],
    ids=ascii,
)
def test_what_is_no_reference_is_refused(reference: Any) -> None:
    """Whatever a broker brings instead of a reference binds nobody."""
    is_refused(reference)


def test_parts_of_two_references_are_none() -> None:
    """The signature of one does not hold for another."""
    mine, other = made().split("."), made(Caller(identifier="globex")).split(".")
    is_refused(".".join([mine[0], other[1], mine[2]]))
    is_refused(".".join([mine[0], mine[1], other[2]]))
    is_refused(f"{made()}=")
    is_refused(f"{made()}.")


def test_a_signed_header_is_no_reference() -> None:
    """Under the same secret the two cannot take each other's place, also with the kind exchanged."""
    (header,) = SignedIdentity(secrets=[NEW], clock=lambda: NOW).headers(ACME, "GET", "/").values()
    is_refused(header)
    is_refused(header.replace("kwai-identity-1", "kwai-reference-1"))
    is_refused(made().replace("-1.", "-2.", 1))


def test_a_signature_makes_no_caller_of_what_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by something that has the secret and states what no caller has, it is refused, not half bound."""
    signer = _reference.reference_signer("a test", [NEW])
    for content in ({"identifier": ""}, {"identifier": 5}, {"credentials": []}, {"budget": 5}, {"byok": "sometimes"}):
        is_refused(signer.signed(_reference.ReferenceContent(content, NOW + 5)))
    unreadable: Any = "tomorrow"
    is_refused(signer.signed(_reference.ReferenceContent({}, unreadable)))
    is_refused(signer.signed(_reference.ReferenceContent({}, math.nan)), "expired")


def test_64_references_at_once_are_who_they_are() -> None:
    """Workers that bind at the same time see their own customer each."""

    def work(number: int) -> tuple[int, str | None]:
        caller = opened(made(Caller(identifier=f"customer-{number}")))
        return number, caller and caller.identifier

    with ThreadPoolExecutor(16) as pool:
        assert {number: f"customer-{number}" for number in range(64)} == dict(pool.map(work, range(64)))


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
PLAIN = st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.floats(allow_nan=False) | st.booleans()
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("identifier", "name", "email", "group", "thread", "issuer"), TEXTS),
        "metadata": st.dictionaries(PLAIN.filter(lambda key: isinstance(key, str)), PLAIN, max_size=5),
        "byok": st.sampled_from(["prefer", "only", "off"]),
        "capture": st.sampled_from(["full", "metadata", "none"]),
    },
)


@given(FIELDS)
def test_any_caller_comes_out_as_it_went_in(fields: dict[str, Any]) -> None:
    """Whatever a caller has, infinity in its metadata included, it is the same on the other side, type for type."""
    caller = Caller(**fields)
    bound = opened(made(caller))
    assert bound is not None
    assert caller == bound
    for key, value in caller.metadata.items():
        assert type(value) is type(bound.metadata[key])


def test_a_number_that_equals_nothing_stays_one() -> None:
    """Not a number, which JSON has no word for, arrives as that."""
    bound = opened(made(Caller(metadata={"share": math.nan})))
    assert bound is not None
    assert math.isnan(float(bound.metadata["share"]))


@given(st.text(max_size=200))
def test_nothing_that_is_made_up_holds(text: str) -> None:
    """No text is a reference by accident."""
    for made_up in (text, f"kwai-reference-1.{text}", f"kwai-reference-1.{text}.{text}"):
        is_refused(made_up)
