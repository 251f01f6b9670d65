"""A base URL that a key may travel to, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

import httpx
import pytest

from kwai_middleware._route import Route, checked_base_url, is_loopback
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.httpx_transport import KwaiTransport


@pytest.mark.parametrize(
    "url",
    [
        "https://llm.example/v1",
        "https://llm.example",
        "https://llm.example:8443/a/b",
        "HTTPS://LLM.EXAMPLE/v1",
        "https://[2001:db8::1]:8443/v1",
        "http://localhost:8700/api",
        "http://sandbox.localhost/api",
        "http://127.0.0.1:8700",
        "http://127.9.9.9",
        "http://[::1]:8700/api",
    ],
)
def test_a_base_url_that_is_allowed(url: str) -> None:
    """An absolute https URL is a base URL, and so is http to this machine."""
    assert url == checked_base_url("field", url)
    assert url == Route(url).url


@pytest.mark.parametrize("url", ["https://llm.example/v1/", "https://llm.example/v1///"])
def test_trailing_slashes_are_taken_off(url: str) -> None:
    """With and without a slash is the same base."""
    assert "https://llm.example/v1" == checked_base_url("field", url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "llm.example/v1",
        "/v1",
        "//llm.example/v1",
        "ftp://llm.example",
        "https://",
        "https:///v1",
        "https://:443/v1",
        "https://user@llm.example",
        "https://user:pass@llm.example",
        "https://@llm.example",
        "https://llm.example/v1?key=1",
        "https://llm.example/v1?",
        "https://llm.example/v1#part",
        "https://llm.example/v1#",
        "https://llm.example:0",
        "https://llm.example:99999",
        "https://llm.example:port",
        "https://llm.example:-1",
        "https://[::1",
        "https://llm.example/ v1",
        "https://llm.example\n/v1",
        "https://llm.example/\x00",
        "https://llm.exämple/v1",
        b"https://llm.example",
        None,
        17,
        ["https://llm.example"],
    ],
    ids=repr,
)
def test_what_is_no_base_url_is_refused_by_name(url: Any) -> None:
    """The error names the field and never the value, which may hold a key."""
    with pytest.raises(ConfigurationError, match=r"^the_field: ") as refused:
        checked_base_url("the_field", url)
    assert len(str(url)) < 9 or str(url) not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example/v1",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://notlocalhost",
        "http://0.0.0.0",
        "http://2130706433",
    ],
)
def test_a_key_never_travels_in_clear_by_accident(url: str) -> None:
    """Plain http to another machine is refused, until the route says that it is meant."""
    with pytest.raises(ConfigurationError, match=r"Route\.url: http:// sends keys in clear"):
        Route(url)
    assert url == Route(url, insecure=True).url


def test_a_route_knows_what_it_is() -> None:
    """A route is direct, to OpenRouter's kind of API, unless it says otherwise; any other kind is refused."""
    assert ("direct", "openrouter", False) == (
        Route("https://llm.example").kind,
        Route("https://llm.example").provider,
        Route("https://llm.example").insecure,
    )
    assert "gateway" == Route("https://llm.example", kind="gateway").kind
    assert "relay" == Route("https://llm.example", kind="relay").kind
    with pytest.raises(ConfigurationError, match=r"^Route\.kind: one of gateway, relay, direct$"):
        Route("https://llm.example", kind="proxy")  # type: ignore[arg-type]  # a value that only a program can bring


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.OpenAI.com:443/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://llm.example", "openrouter"),
    ],
)
def test_a_vendor_is_never_sent_the_keys_of_another(url: str, provider: str) -> None:
    """A route to a well-known vendor is for that vendor's keys, unless the app says otherwise."""
    assert provider == Route(url).provider
    assert "mine" == Route(url, provider="mine").provider


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("llm.example", False),
        ("::2", False),
    ],
)
def test_this_machine_is_known_by_its_names(host: str, expected: bool) -> None:
    """Loopback is the name, what ends in it, and its addresses; no name is looked up."""
    assert expected is is_loopback(host)


@pytest.mark.parametrize("host", ["openrouter.ai", "OpenRouter.ai", "api.openai.com", "api.anthropic.com"])
def test_a_models_own_api_is_no_gateway(host: str) -> None:
    """Customers' keys stand in what a gateway is sent, and a model's API hands on what it does not know."""
    kinds: tuple[Literal["gateway", "relay"], ...] = ("gateway", "relay")
    for kind in kinds:
        with pytest.raises(ConfigurationError, match="no gateway"):
            Route(f"https://{host}/api/v1", kind=kind)
    assert "direct" == Route(f"https://{host}/api/v1").kind
    with pytest.raises(ConfigurationError, match="base_url"):
        KwaiTransport(httpx.HTTPTransport(), settings=Settings(base_url=f"https://{host}/api/v1"))
