"""Settings are read from where they are said to be, checked at once, and never show a key."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._caller import Credential
from kwai_middleware._delivery.delivery import default_delivery
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from kwai_middleware._settings import KEYWORDSAI_BASE_URL, OPENROUTER_BASE_URL, RESPAN_BASE_URL, Settings
from kwai_middleware.errors import ConfigurationError
from tests.support.masks import Redactor, hidden

KEY = "sk-very-secret-key-0123456789"


VALID = {
    "KEYWORDSAI_API_KEY": (KEY, "api_key", Secret(KEY)),
    "RESPAN_API_KEY": (KEY, "api_key", Secret(KEY)),
    "KEYWORDSAI_BASE_URL": ("https://proxy.example/api/", "base_url", "https://proxy.example/api"),
    "RESPAN_BASE_URL": ("https://proxy.example/api", "base_url", "https://proxy.example/api"),
    "OPENROUTER_BASE_URL": ("http://localhost:1/v1", "openrouter_base_url", "http://localhost:1/v1"),
    "KWAI_ROUTES": (
        " gateway=https://a.example/api, direct=https://b.example/v1",
        "routes",
        (Route("https://a.example/api", kind="gateway"), Route("https://b.example/v1", kind="direct")),
    ),
    "KWAI_CREDENTIALS": (
        f" openrouter={KEY};w=3\topenrouter=sk-or-2  openai=sk=with=signs;w=0.5 ",
        "credentials",
        (
            Credential(api_key=Secret(KEY), weight=3.0),
            Credential(api_key=Secret("sk-or-2")),
            Credential(provider="openai", api_key=Secret("sk=with=signs"), weight=0.5),
        ),
    ),
    "KWAI_GATEWAY_KEY_LISTS": ("by-provider", "gateway_key_lists", "by-provider"),
    "KWAI_BYOK": ("only", "byok", "only"),
    "KWAI_ON_CONFLICT": ("error", "on_conflict", "error"),
    "KWAI_BODY_CREDENTIALS": ("allow", "body_credentials", "allow"),
    "KWAI_CAPTURE": (" metadata ", "capture", "metadata"),
    "KWAI_MASK": ("tests.support.masks:hidden", "mask", hidden),
    "KWAI_MEDIA": ("keep", "media", "keep"),
    "KWAI_SPOOL": ("sqlite:////var//lib/app/", "spool", "sqlite:///var/lib/app/"),
    "KWAI_MAX_CALL_BYTES": ("1048576", "max_call_bytes", 1048576),
    "KWAI_MAX_OPEN_BYTES": ("2097152", "max_open_bytes", 2097152),
    "KWAI_MAX_WAITING_CALLS": ("5", "max_waiting_calls", 5),
    "KWAI_MAX_SPOOL_BYTES": ("4194304", "max_spool_bytes", 4194304),
    "KWAI_MAX_MEMORY_BYTES": ("65536", "max_memory_bytes", 65536),
    "KWAI_BULK_PER_MINUTE": ("0", "bulk_per_minute", 0),
    "KWAI_SERVERLESS": ("True", "serverless", True),
    "KWAI_MAX_PENDING_AGE": ("60", "max_pending_age", 60.0),
    "KWAI_REQUEST_TIMEOUT": ("0.5", "request_timeout", 0.5),
    "KWAI_EXIT_TIMEOUT": ("0", "exit_timeout", 0.0),
}

INVALID = [
    ("KEYWORDSAI_API_KEY", f"{KEY}\n{KEY}"),
    ("RESPAN_API_KEY", f"two {KEY}"),
    ("KEYWORDSAI_BASE_URL", f"http://far.example/{KEY}"),
    ("RESPAN_BASE_URL", "api.respan.ai"),
    ("OPENROUTER_BASE_URL", f"https://{KEY}@openrouter.ai/api/v1"),
    ("KWAI_ROUTES", f"other=https://host.example/{KEY}"),
    ("KWAI_ROUTES", f"https://host.example/{KEY}"),
    ("KWAI_ROUTES", f"direct=http://far.example/{KEY}"),
    ("KWAI_CREDENTIALS", KEY),
    ("KWAI_CREDENTIALS", f"openrouter={KEY} openai="),
    ("KWAI_CREDENTIALS", f"Open Router={KEY}"),
    ("KWAI_CREDENTIALS", f"openrouter={KEY};2"),
    ("KWAI_CREDENTIALS", f"openrouter={KEY};w=0"),
    ("KWAI_CREDENTIALS", f"openrouter={KEY};w=nan"),
    ("KWAI_CREDENTIALS", f"openrouter={KEY};w={KEY}"),
    ("KWAI_GATEWAY_KEY_LISTS", "on"),
    ("KWAI_BYOK", KEY),
    ("KWAI_MEDIA", KEY),
    ("KWAI_SPOOL", f"sqlite:{KEY}"),
    ("KWAI_SERVERLESS", KEY),
    ("KWAI_ON_CONFLICT", "Context"),
    ("KWAI_BODY_CREDENTIALS", "yes"),
    ("KWAI_CAPTURE", "all"),
    ("KWAI_MASK", KEY),
    ("KWAI_MASK", "tests.support.masks.hidden"),
    ("KWAI_MASK", "tests.support.masks:"),
    ("KWAI_MASK", f"tests.support.masks:hidden {KEY}"),
    ("KWAI_MASK", "no_such_package.at_all:hidden"),
    ("KWAI_MASK", "tests.support.masks:no_such_function"),
    ("KWAI_MASK", "tests.support.masks:NO_FUNCTION"),
    ("KWAI_MASK", "builtins:None"),
    ("KWAI_MASK", "asyncio:sleep"),
    ("KWAI_SPOOL", "redis://"),
    ("KWAI_MAX_CALL_BYTES", "8MB"),
    ("KWAI_MAX_CALL_BYTES", "1"),
    ("KWAI_MAX_OPEN_BYTES", "-1"),
    ("KWAI_MAX_WAITING_CALLS", "0"),
    ("KWAI_MAX_WAITING_CALLS", "٣"),
    ("KWAI_MAX_SPOOL_BYTES", "9" * 5000),
    ("KWAI_MAX_PENDING_AGE", "7d"),
    ("KWAI_MAX_PENDING_AGE", "nan"),
    ("KWAI_REQUEST_TIMEOUT", "inf"),
    ("KWAI_REQUEST_TIMEOUT", "0"),
    ("KWAI_EXIT_TIMEOUT", "-1"),
    ("KWAI_EXIT_TIMEOUT", "61"),
]


def test_an_empty_environment_gives_the_defaults() -> None:
    """What is unset, empty or blank has its default."""
    assert Settings() == Settings.from_env({})
    assert Settings() == Settings.from_env(dict.fromkeys(VALID, "") | {"KWAI_CAPTURE": "  "})
    assert (None, KEYWORDSAI_BASE_URL, OPENROUTER_BASE_URL) == (
        Settings().api_key,
        Settings().base_url,
        Settings().openrouter_base_url,
    )


@pytest.mark.parametrize("variable", VALID)
def test_each_variable_sets_its_field(variable: str) -> None:
    """Every environment variable that the docstring names sets the field that it names."""
    text, field, expected = VALID[variable]
    assert expected == getattr(Settings.from_env({variable: text}), field)


def test_each_field_has_a_variable_that_the_docstring_names() -> None:
    """No field is left without a variable, and no variable without a word to the user."""
    variables = [name for field in dataclasses.fields(Settings) for name in field.metadata["variables"]]
    assert set(VALID) == set(variables)
    assert [] == [name for name in variables if name not in (Settings.__doc__ or "")]


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own environment is read, at the moment of the call."""
    monkeypatch.setenv("KWAI_BYOK", "off")
    assert "off" == Settings.from_env().byok
    assert "prefer" == Settings().byok


def test_the_first_variable_of_a_field_counts() -> None:
    """KEYWORDSAI_... goes before RESPAN_..., and an empty one before does not hide the other."""
    both = {"KEYWORDSAI_API_KEY": "first-key", "RESPAN_API_KEY": "second-key"}
    assert Secret("first-key") == Settings.from_env(both).api_key
    assert Secret("second-key") == Settings.from_env(both | {"KEYWORDSAI_API_KEY": " "}).api_key


def test_a_respan_key_goes_to_respan() -> None:
    """With only RESPAN_API_KEY the base URL is the host of that name; one that is given stays."""
    assert RESPAN_BASE_URL == Settings.from_env({"RESPAN_API_KEY": KEY}).base_url
    assert KEYWORDSAI_BASE_URL == Settings.from_env({"RESPAN_API_KEY": KEY, "KEYWORDSAI_API_KEY": KEY}).base_url
    given = {"RESPAN_API_KEY": KEY, "KEYWORDSAI_BASE_URL": "https://proxy.example/api"}
    assert "https://proxy.example/api" == Settings.from_env(given).base_url


@pytest.mark.parametrize(("variable", "text"), INVALID, ids=[f"{name}-{text[:12]!r}" for name, text in INVALID])
def test_a_bad_variable_is_refused_by_its_name(variable: str, text: str) -> None:
    """The error names the variable, says what is allowed, and does not repeat the value: it may be a key."""
    with pytest.raises(ConfigurationError, match=rf"^{variable}: ") as refused:
        Settings.from_env({variable: text})
    assert KEY not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", ""),
        ("api_key", f"{KEY} "),
        ("api_key", 17),
        ("base_url", "api.keywordsai.co"),
        ("base_url", None),
        ("openrouter_base_url", "http://openrouter.ai/api/v1"),
        ("routes", None),
        ("routes", "https://host.example"),
        ("routes", ["https://host.example"]),
        ("routes", Route("https://host.example")),
        ("credentials", None),
        ("credentials", Credential(api_key=Secret(KEY))),
        ("credentials", [Secret(KEY)]),
        ("credentials", {"openrouter": KEY}),
        ("gateway_key_lists", True),
        ("byok", "always"),
        ("byok", ["prefer"]),
        ("capture", None),
        ("mask", "tests.support.masks:hidden"),
        ("mask", hidden("x")),
        ("media", "drop"),
        ("spool", "sqlite:spool"),
        ("spool", "sqlite://spool.db"),
        ("spool", "sqlite:////"),
        ("spool", "sqlite:///a\0b"),
        ("spool", None),
        ("serverless", "true"),
        ("serverless", 1),
        ("bulk_per_minute", -1),
        ("max_call_bytes", 262143),
        ("max_call_bytes", 1e9),
        ("max_open_bytes", None),
        ("max_waiting_calls", True),
        ("max_spool_bytes", "65536"),
        ("max_pending_age", 0.5),
        ("max_pending_age", "60"),
        ("request_timeout", True),
        ("request_timeout", float("nan")),
        ("exit_timeout", -0.1),
    ],
    ids=repr,
)
def test_a_bad_argument_is_refused_by_its_name(field: str, value: Any) -> None:
    """The error is a ConfigurationError, which is a ValueError, and names the field."""
    with pytest.raises(ConfigurationError, match=rf"^Settings\.{field}: ") as refused:
        Settings(**{field: value})
    assert isinstance(refused.value, ValueError)
    assert KEY not in str(refused.value)


def test_a_plain_key_becomes_a_secret() -> None:
    """A key given as text is wrapped, so that no later look at the settings shows it."""
    settings = Settings(api_key=KEY)  # type: ignore[arg-type]  # allowed for those who do not check types
    assert Secret(KEY) == settings.api_key
    assert KEY not in repr(settings)
    assert KEY not in str(dataclasses.astuple(settings))


def test_equal_settings_are_interchangeable() -> None:
    """They compare and hash alike, lists and slashes made equal, since they share one delivery."""
    one = Settings(api_key=Secret(KEY), base_url="https://proxy.example/", routes=[Route("https://a.example")])  # type: ignore[arg-type]  # a list will do
    two = Settings(api_key=Secret(KEY), base_url="https://proxy.example", routes=(Route("https://a.example"),))
    assert one == two
    assert {one: "found"}[copy.copy(two)] == "found"
    assert one != Settings(api_key=Secret(KEY + "x"), base_url="https://proxy.example", routes=one.routes)


def test_settings_show_none_of_the_apps_keys() -> None:
    """The keys are part of what makes settings equal, and are in no text of them."""
    one, two = (Settings(credentials=[Credential(api_key=Secret(KEY), weight=2)]) for _ in range(2))  # type: ignore[arg-type]  # a list will do
    assert one == two
    assert hash(one) == hash(two)
    assert one != Settings()
    assert Secret(KEY).fingerprint in repr(one)
    for text in (repr(one), str(one), str(dataclasses.astuple(one)), str(dataclasses.asdict(one))):
        assert KEY not in text


def test_settings_that_differ_in_the_apps_keys_share_a_delivery() -> None:
    """Keys that are changed at run time leave no threads behind: nothing of a delivery hangs on them."""
    spool = {"spool": "memory:"}
    first = default_delivery(Settings(credentials=(Credential(api_key=Secret(KEY)),), **spool))
    assert first is default_delivery(Settings(credentials=(Credential(api_key=Secret("sk-or-2")),), **spool))
    assert first is default_delivery(Settings(**spool))
    assert first is not default_delivery(Settings(byok="off", **spool))


def test_settings_are_frozen() -> None:
    """Nobody changes them under a running delivery."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().byok = "off"  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("field", "edge"),
    [
        ("exit_timeout", 0),
        ("exit_timeout", 60),
        ("request_timeout", 0.1),
        ("max_waiting_calls", 1),
        ("max_pending_age", 1),
    ],
)
def test_the_bounds_themselves_are_allowed(field: str, edge: float) -> None:
    """A bound that an error message names is a value that is taken, whole numbers for seconds too."""
    assert edge == getattr(Settings(**{field: edge}), field)  # type: ignore[arg-type]  # one field at a time


def test_a_malformed_key_is_in_no_frame_of_the_error() -> None:
    """Error reporters show the variables of each frame; ours hold nothing that was read."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"KEYWORDSAI_API_KEY": "a key with blanks"})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    frames = [entry.frame.f_locals for entry in caught.traceback[1:]]
    assert frames
    assert "with blanks" not in repr(frames)


async def later(text: str) -> str:
    """Give a text back, not yet."""
    return text


async def one_by_one(text: str) -> AsyncIterator[str]:
    """Give a text back in pieces, not yet."""
    yield text


class Later:
    """A callable object whose answer comes later."""

    async def __call__(self, text: str) -> str:
        return text


class Unhashable:
    """A callable object that cannot be found again by its value."""

    __hash__ = None  # type: ignore[assignment]  # the way to say so

    def __call__(self, text: str) -> str:
        return text


class TestMask:
    """The field `mask`."""

    @pytest.mark.parametrize(
        "mask",
        [hidden, str.upper, functools.partial(hidden), Redactor(), Redactor().redact, lambda text: text, str],
        ids=["function", "builtin", "partial", "object", "method", "lambda", "class"],
    )
    def test_anything_that_takes_a_text_will_do(self, mask: Any) -> None:
        """Functions, methods and callable objects are taken; settings with the same one share a delivery."""
        one, two = Settings(mask=mask), Settings(mask=mask)
        assert mask is one.mask
        assert {one: "found"}[two] == "found"
        assert Settings() != one

    @pytest.mark.parametrize("mask", [later, one_by_one, Later(), functools.partial(later), Later().__call__])
    def test_an_async_function_is_refused(self, mask: Any) -> None:
        """The recording thread has no event loop: that is said at once, not at the first record."""
        with pytest.raises(ConfigurationError, match=r"^Settings\.mask: an async function"):
            Settings(mask=mask)

    def test_what_cannot_be_found_again_is_refused(self) -> None:
        """Settings are looked up by their value."""
        with pytest.raises(ConfigurationError, match=r"^Settings\.mask: .*hashable"):
            Settings(mask=Unhashable())

    def test_it_is_not_shown(self) -> None:
        """What a function was prepared with may be a secret, such as the salt of a hash."""
        assert KEY not in repr(Settings(mask=functools.partial(hidden, KEY)))

    def test_a_method_is_found_by_its_name(self) -> None:
        """The variable may name what stands inside a class."""
        assert Redactor.plain is Settings.from_env({"KWAI_MASK": "tests.support.masks:Redactor.plain"}).mask

    @pytest.mark.parametrize("code", [f"raise RuntimeError({KEY!r})", f"{KEY!r} = 1", "def __getattr__(name): 1 / 0"])
    def test_a_module_that_fails_is_refused_by_its_name(
        self, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error in the app's own module names the variable and the module, and quotes nothing of it."""
        module = tmp_path.name
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigurationError, match=rf"^KWAI_MASK: .*{module}") as refused:
            Settings.from_env({"KWAI_MASK": f"{module}:mask"})
        assert KEY not in str(refused.value)
        assert refused.value.__context__ is None
