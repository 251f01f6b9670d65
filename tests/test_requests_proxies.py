"""Proxies of requests: one of the environment gets no key in clear that was meant for this machine."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from kwai_middleware import Route, bind_caller
from kwai_middleware.requests_adapter import KwaiAdapter
from tests.support.callers import caller, settings

ELSEWHERE = "http://proxy.example:3128"


class _Inner(BaseAdapter):
    """Answers at once, and remembers through which proxies it should have sent."""

    def __init__(self) -> None:
        super().__init__()
        self.proxies: Any = None

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        self.proxies = dict(options["proxies"])
        response: Any = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response._content, response._content_consumed = b"{}", True
        return response

    def close(self) -> None:
        """There is nothing to close."""


def _proxies_for(url: str, **own: str) -> Any:
    """Through which proxies a call to a route at `url` is sent, by a session that has some of its own."""
    inner = _Inner()
    given = settings(routes=(Route(url.removesuffix("/chat/completions"), insecure=True),))
    session = requests.Session()
    session.mount(url[: url.index("/v1")], KwaiAdapter(inner, settings=given, deliver=lambda call: None))
    session.proxies.update(own)
    with bind_caller(caller()):
        assert 200 == session.post(url, json={"model": "m"}).status_code
    return inner.proxies


@pytest.mark.parametrize("proxy", [ELSEWHERE, "proxy.example:3128"])
@pytest.mark.parametrize("host", ["127.0.0.1:4000", "localhost:4000", "[::1]"])
def test_no_proxy_elsewhere_gets_a_call_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str, proxy: str) -> None:
    """It would get the caller's key in clear over the network, for a server that it cannot even reach."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert {} == _proxies_for(f"http://{host}/v1/chat/completions")


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://127.0.0.1/v1/chat/completions", ELSEWHERE),
        ("http://llm.example/v1/chat/completions", ELSEWHERE),
        ("http://127.0.0.1/v1/chat/completions", "127.0.0.1:3128"),
        ("http://127.0.0.1/v1/chat/completions", ""),
    ],
    ids=["encrypted", "another machine", "a proxy on this machine", "none"],
)
def test_any_other_call_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, url: str, proxy: str) -> None:
    """What is encrypted, what leaves this machine anyway, and what does not leave it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    expected = {"http": proxy, "https": proxy} if proxy else {}
    assert expected == _proxies_for(url)


def test_a_proxy_that_the_app_gives_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes one down for a call to this machine means it."""
    monkeypatch.setenv("HTTP_PROXY", "http://other.example:3128")
    sent = _proxies_for("http://127.0.0.1/v1/chat/completions", **{"http://127.0.0.1": ELSEWHERE})
    assert ELSEWHERE == sent["http://127.0.0.1"]
