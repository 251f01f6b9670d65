"""Keys from the app's own vault: whose they are, when it is asked, and what a vault that fails means."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import kwai_middleware as kwai
from kwai_middleware import Caller, Credential, KeyResolver, Secret, bind_caller, current_caller
from kwai_middleware._context import current_slot
from kwai_middleware._notices import counts
from kwai_middleware.errors import ConfigurationError, KeysUnavailable, MissingCredential
from tests.support.callers import GATEWAY, OPENROUTER, key_of, settings
from tests.support.flavours import Flavour
from tests.support.looked_up import ASKS, Vault, call, key_sent
from tests.support.spooling import Clock

ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")


@pytest.fixture(params=["plain", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the app's function is written."""
    return str(request.param)


def resolver(vault: Vault, kind: str = "plain", **options: Any) -> KeyResolver:
    return KeyResolver(vault.keys_of if kind == "plain" else vault.keys_of_async, **options)


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_the_key_from_the_vault_pays(flavour: Flavour, kind: str, url: str) -> None:
    """A caller that brings no key is looked up when it calls a model, and that key pays."""
    vault = Vault()
    sent = call(flavour, ACME, resolver(vault, kind), url)
    assert [key_of("acme")] == [key_sent(request) for request in sent]
    assert ["acme"] == vault.asked


def test_nobody_is_asked_for_without_need(flavour: Flavour) -> None:
    """No look-up for nobody, for a caller without an identifier, with keys, or whose keys are never sent."""
    vault = Vault()
    keys = resolver(vault)
    own = Caller(identifier="acme", credentials=(Credential(api_key=Secret(key_of("own"))),))
    assert key_sent(call(flavour, None, keys)[0]) is None
    assert key_sent(call(flavour, Caller(name="no id"), keys)[0]) is None
    assert key_of("own") == key_sent(call(flavour, own, keys)[0])
    assert key_sent(call(flavour, ACME, keys, byok="off")[0]) is None
    assert key_sent(call(flavour, Caller(identifier="acme", byok="off"), keys)[0]) is None
    call(flavour, ACME, keys, "https://elsewhere.example/chat/completions")
    with bind_caller(ACME, credentials=keys):
        assert current_caller() == ACME  # who it is says nothing of keys
    assert [] == vault.asked


def test_an_answer_counts_for_a_while(flavour: Flavour, kind: str) -> None:
    """The vault is asked once in `ttl` seconds for each caller, and once in `negative_ttl` for one without keys."""
    vault, clock = Vault(without=("beta",)), Clock()
    keys = resolver(vault, kind, ttl=60, negative_ttl=5, clock=clock)
    for _ in range(3):
        assert key_of("acme") == key_sent(call(flavour, ACME, keys)[0])
        assert key_sent(call(flavour, BETA, keys)[0]) is None
    assert ["acme", "beta"] == vault.asked
    clock.now += 5
    call(flavour, ACME, keys), call(flavour, BETA, keys)
    assert ["acme", "beta", "beta"] == vault.asked
    clock.now += 55
    call(flavour, ACME, keys)
    assert ["acme", "beta", "beta", "acme"] == vault.asked


def test_without_a_ttl_each_call_asks(flavour: Flavour) -> None:
    """`ttl=0` keeps nothing, also not that there are no keys."""
    vault = Vault(without=("beta",))
    keys = resolver(vault, ttl=0)
    for who in (ACME, ACME, BETA, BETA):
        call(flavour, who, keys)
    assert ["acme", "acme", "beta", "beta"] == vault.asked


def test_no_keys_in_the_vault(flavour: Flavour, kind: str) -> None:
    """A caller without keys is served on the app's own key, or refused under byok='only'."""
    keys = resolver(Vault(without=("acme",)), kind)
    assert key_sent(call(flavour, ACME, keys, OPENROUTER)[0]) is None
    with pytest.raises(MissingCredential):
        call(flavour, ACME, keys, OPENROUTER, byok="only")


@pytest.mark.parametrize("byok", ["prefer", "only"])
def test_a_vault_that_fails_refuses_the_call(
    flavour: Flavour, kind: str, byok: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It never means the app's own key; the log has the kind of error and not its words; the next call asks again."""
    vault = Vault()
    vault.error = OSError(f"could not decrypt {key_of('acme')}")
    keys = resolver(vault, kind)
    before = counts().get("keys_unavailable", 0)
    with caplog.at_level(logging.WARNING), pytest.raises(KeysUnavailable, match="failed with OSError") as refused:
        call(flavour, ACME, keys, byok=byok)
    assert vault.error is refused.value.__cause__
    assert 1 == counts()["keys_unavailable"] - before
    assert "keys_of" in caplog.text
    assert "OSError; the call is refused" in caplog.text
    assert key_of("acme") not in caplog.text + str(refused.value)
    vault.error = None
    assert key_of("acme") == key_sent(call(flavour, ACME, keys, byok=byok)[0])


def test_a_ready_client_answers_for_a_vault_that_fails(flavour: Flavour) -> None:
    """The SDK gets a 503 that it does not retry, with what has happened, in the vendor's shape."""
    vault = Vault()
    vault.error = OSError()
    client = flavour.client(settings=settings(), deliver=lambda _: None)
    with bind_caller(ACME, credentials=resolver(vault)):
        answers = [
            flavour.post(client, url, **ASKS)
            for url in (OPENROUTER, OPENROUTER.replace("chat/completions", "messages"))
        ]
    flavour.close(client)
    assert [503, 503] == [answer.status_code for answer in answers]
    assert {"keys_unavailable"} == {answer.headers["x-kwai-refused"] for answer in answers}
    assert {"false"} == {answer.headers["x-should-retry"] for answer in answers}
    assert "failed with OSError" in answers[0].json()["error"]["message"]
    assert "provider_unavailable" == answers[0].json()["error"]["metadata"]["error_type"]
    assert "api_error" == answers[1].json()["error"]["type"]


def test_old_keys_while_the_vault_is_away(flavour: Flavour, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """With `stale_for` the last answer counts for so long, and a vault that fails is not asked at each call."""
    vault, clock = Vault(), Clock()
    keys = resolver(vault, kind, ttl=60, stale_for=600, clock=clock)
    call(flavour, ACME, keys)
    vault.error = TimeoutError()
    clock.now += 61
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert key_of("acme") == key_sent(call(flavour, ACME, keys)[0])
    assert ["acme"] * 2 == vault.asked
    assert "its last answer is used" in caplog.text
    with pytest.raises(KeysUnavailable):
        call(flavour, BETA, keys)
    clock.now += 6
    call(flavour, ACME, keys)
    assert ["acme", "acme", "beta", "acme"] == vault.asked
    clock.now += 600
    with pytest.raises(KeysUnavailable):
        call(flavour, ACME, keys)


def test_no_keys_is_no_answer_for_later(flavour: Flavour, kind: str) -> None:
    """A customer who had none when the vault was last there, and may have one now, is refused and not the app's."""
    vault, clock = Vault(without=("acme",)), Clock()
    keys = resolver(vault, kind, ttl=60, negative_ttl=10, stale_for=3600, clock=clock)
    assert key_sent(call(flavour, ACME, keys)[0]) is None
    vault.error = OSError()
    clock.now += 11
    with pytest.raises(KeysUnavailable):
        call(flavour, ACME, keys)


def test_a_key_that_was_deleted_does_not_come_back(flavour: Flavour) -> None:
    """Once the vault has said that there is none, no older answer counts, also when that one is not kept."""
    vault, clock = Vault(), Clock()
    keys = resolver(vault, ttl=10, negative_ttl=0, stale_for=3600, clock=clock)
    assert key_of("acme") == key_sent(call(flavour, ACME, keys)[0])
    vault.without.add("acme")
    clock.now += 11
    assert key_sent(call(flavour, ACME, keys)[0]) is None
    vault.error = OSError()
    with pytest.raises(KeysUnavailable):
        call(flavour, ACME, keys)


def test_two_customers_of_one_name(flavour: Flavour) -> None:
    """What is remembered is by issuer, group and identifier: a 42 of another issuer is somebody else."""
    vault = Vault()
    keys = resolver(vault)
    everybody = [
        Caller(identifier="42", issuer=issuer, group=group) for issuer in (None, "a", "b") for group in (None, "x", "y")
    ]
    for _ in range(2):
        for who in everybody:
            expected = key_of(f"{who.issuer or ''}{who.group or ''}42")
            assert expected == key_sent(call(flavour, who, keys)[0])
    assert len(everybody) == len(vault.asked)


def test_so_many_are_remembered(flavour: Flavour) -> None:
    """Beyond `max_entries` the one that was remembered longest is asked for again, the others are not."""
    vault = Vault()
    keys = resolver(vault, max_entries=2)
    for name in ("acme", "beta", "gamma", "beta", "gamma", "acme"):
        call(flavour, Caller(identifier=name), keys)
    assert ["acme", "beta", "gamma", "acme"] == vault.asked


def test_a_key_that_was_just_saved(flavour: Flavour) -> None:
    """`forget` makes the next call ask again: of one caller, or of all."""
    vault = Vault(without=("acme",))
    keys = resolver(vault)
    assert key_sent(call(flavour, ACME, keys)[0]) is None
    call(flavour, BETA, keys)
    vault.without.clear()
    keys.forget(ACME)
    assert key_of("acme") == key_sent(call(flavour, ACME, keys)[0])
    call(flavour, BETA, keys)
    assert ["acme", "beta", "acme"] == vault.asked
    keys.forget()
    call(flavour, BETA, keys)
    assert ["acme", "beta", "acme", "beta"] == vault.asked


@pytest.mark.parametrize(
    ("known_as", "asks_again"),
    [
        (Caller(identifier="acme"), True),
        (Caller(identifier="acme", issuer="https://login.example/"), True),
        (Caller(identifier="acme", group="holding", thread="another"), True),
        (Caller(identifier="beta"), False),
        (Caller(identifier="acme", issuer="https://other.example/"), False),
        (Caller(identifier="acme", group="other"), False),
    ],
)
def test_a_key_that_was_deleted_by_who_does_not_know_all_of_the_caller(
    flavour: Flavour, known_as: Caller, asks_again: bool
) -> None:
    """An identifier alone means those of every issuer and group: no key goes on paying because one was not named."""
    vault = Vault()
    keys = resolver(vault)
    caller = Caller(identifier="acme", issuer="https://login.example/", group="holding")
    call(flavour, caller, keys)
    keys.forget(known_as)
    call(flavour, caller, keys)
    assert ["acme"] * (2 if asks_again else 1) == vault.asked


@pytest.mark.parametrize(
    "answer", [Credential(api_key=Secret("sk-or-v1-alone")), ["sk-or-v1-text"], "sk-or-v1-text", 5]
)
def test_an_answer_that_is_no_list_of_credentials(flavour: Flavour, answer: Any) -> None:
    """The call is refused, and the cause says what is expected and shows no key."""
    with pytest.raises(KeysUnavailable) as refused:
        call(flavour, ACME, KeyResolver(lambda _: answer))
    assert "expected a list of Credential" in str(refused.value.__cause__)
    assert "sk-or" not in str(refused.value.__cause__)


def test_the_function_works_for_that_caller(flavour: Flavour, kind: str) -> None:
    """While it looks up it runs for the caller, who has no keys yet: a model that it calls itself asks nobody again."""
    inner: list[Any] = []
    vault = Vault()

    def keys_of(caller: Caller) -> Any:
        inner.append((current_caller(), current_slot().unsettled))
        return vault.keys_of(caller)

    async def keys_of_async(caller: Caller) -> Any:
        return keys_of(caller)

    call(flavour, ACME, KeyResolver(keys_of if kind == "plain" else keys_of_async))
    assert [(ACME, None)] == inner
    assert current_caller() is None


def test_keys_from_the_vault_are_masked(flavour: Flavour) -> None:
    """They are secrets of the call's record and of the log lines of that work, as keys from a header are."""
    records: list[Any] = []
    shown: list[Any] = []
    call(
        flavour,
        ACME,
        resolver(Vault()),
        OPENROUTER,
        seen=lambda _: shown.extend(current_slot().secrets),
        deliver=records.append,
    )
    assert (Secret(key_of("acme")),) == records[0].secrets
    assert [Secret(key_of("acme"))] == shown
    completed = records[0].build()
    assert ("bind_caller", "key resolver tests.support.looked_up.Vault.keys_of") == (
        completed.identity_from,
        completed.key_from,
    )
    assert Secret(key_of("acme")).fingerprint == completed.key_fingerprint


def test_explain_names_the_vault_once_it_was_asked(flavour: Flavour) -> None:
    """`explain` says where identity and keys came from, and that no keys are known before a call needs them."""
    told: list[Any] = []
    with bind_caller(ACME, credentials=resolver(Vault())):
        told.append(kwai.explain())
    call(flavour, ACME, resolver(Vault()), seen=lambda _: told.append(kwai.explain()))
    call(flavour, BETA, resolver(Vault(without=("beta",))), seen=lambda _: told.append(kwai.explain()))
    named = "key resolver tests.support.looked_up.Vault.keys_of"
    assert [("bind_caller", None), ("bind_caller", named), ("bind_caller", None)] == told
    assert (None, None) == kwai.explain()


def test_at_debug_level_each_call_says_where_it_all_came_from(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each call: identity and key, in words and never as values; at any other level none."""
    with caplog.at_level(logging.DEBUG, logger="kwai_middleware"):
        call(flavour, ACME, resolver(Vault()), OPENROUTER)
        call(flavour, BETA, resolver(Vault(without=("beta",))), OPENROUTER)
    with caplog.at_level(logging.INFO, logger="kwai_middleware"):
        call(flavour, ACME, resolver(Vault()), OPENROUTER)
    assert [
        "kwai_middleware: call to openrouter.ai: identity from bind_caller, key from key resolver"
        " tests.support.looked_up.Vault.keys_of",
        "kwai_middleware: call to openrouter.ai: identity from bind_caller, key from the app itself",
    ] == [record.getMessage() for record in caplog.records if record.name == "kwai_middleware"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"function": None}, "a function that takes a Caller"),
        ({"function": Vault}, "a function that takes a Caller"),
        ({"ttl": -1}, "KeyResolver.ttl: seconds, 0 or more"),
        ({"ttl": True}, "KeyResolver.ttl"),
        ({"negative_ttl": float("inf")}, "KeyResolver.negative_ttl"),
        ({"stale_for": "1"}, "KeyResolver.stale_for"),
        ({"timeout": 0}, "KeyResolver.timeout: seconds above 0"),
        ({"max_entries": 0}, "KeyResolver.max_entries: a whole number above 0"),
        ({"max_entries": 1.5}, "KeyResolver.max_entries"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """They are refused when the resolver is made, by name."""
    with pytest.raises(ConfigurationError, match=message):
        KeyResolver(**({"function": lambda _: None} | arguments))


def test_bind_caller_takes_resolvers_only() -> None:
    """A plain function is refused with what is expected; the resolver shows nothing but its function's name."""
    with pytest.raises(TypeError, match="credentials is a KeyResolver or None, got function"):
        bind_caller(ACME, credentials=lambda _: None)  # type: ignore[arg-type]  # what is tested
    assert "KeyResolver(tests.support.looked_up.Vault.keys_of)" == repr(resolver(Vault()))
