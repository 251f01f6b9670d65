"""A handle on a running sandbox, and the sandbox that runs for a block of code."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Generator
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlencode

import msgspec

from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError

__all__ = ["Sandbox", "require_uvicorn", "sandbox"]


def require_uvicorn() -> None:
    """Make sure that a sandbox can be served.

    Raises:
        ConfigurationError: uvicorn, an extra, is not installed; the message names the command.
    """
    if find_spec("uvicorn") is None:
        raise ConfigurationError("the sandbox needs uvicorn: pip install 'kwai-middleware[sandbox]'")


class Sandbox:
    """A running sandbox, in this process or another.

    Args:
        url: Where it is, such as `http://127.0.0.1:8700`.

    Attributes:
        url: The same, without a trailing slash.
        gateway_url: `base_url` for an OpenAI client that talks to the gateway.
        relay_url: `base_url` for an OpenAI client that talks to the gateway's relay to OpenRouter.
        openrouter_url: `base_url` for an OpenAI client, or `server_url` for the OpenRouter SDK.
        gateway_anthropic_url: `base_url` for an Anthropic client that talks to the gateway.
        openrouter_anthropic_url: `base_url` for an Anthropic client that talks to OpenRouter.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.gateway_url = f"{self.url}/api/"
        self.relay_url = f"{self.url}/api/openrouter/v1"
        self.openrouter_url = f"{self.url}/api/v1"
        self.gateway_anthropic_url = f"{self.url}/api/anthropic"
        self.openrouter_anthropic_url = f"{self.url}/api"
        # Never through a proxy: it is on loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def calls(self, *, wait: int = 0, timeout: float = 10.0, **filters: object) -> list[dict[str, Any]]:
        """Return the model calls that arrived, oldest first.

        `paid_by` is the fingerprint of the key that pays and where it was found, `customer` whom the
        vendor attributes the call to. `doors` are all the places of the request that name a customer or
        bring a key, whether they won or not: `{"door": ..., "kind": ..., "value": ...}`, the kind being
        `identifier`, `name`, `email`, `group`, `thread` or `key` (its fingerprint), or None where the
        place brings nothing. `doors_disagree` are the kinds with different values, keys of different
        providers too: none where one caller with one key decides. `forwarded` are the top-level members
        that go on to the model's provider though they are none of the vendor's: no key and no customer
        should be among them.

        Args:
            wait: Return only when at least so many match.
            timeout: Seconds to wait for them, at most 60.
            filters: `route`, `customer`, `model`, `status`, `paid_by` (a fingerprint), `outcome`.

        Raises:
            TimeoutError: Fewer arrived in time.
        """
        return self._entries("calls", wait, timeout, filters)

    def logs(self, *, wait: int = 0, timeout: float = 10.0, **filters: object) -> list[dict[str, Any]]:
        """Return the records that the request-logs API took, oldest first.

        `log` is the record as it was posted, `stored` what the vendor keeps of it, `dropped` the
        members that it leaves out, `keys_seen` the fingerprint of every key in it, which should be none.
        `stored` is None for a record that the vendor answers with success and then loses without a
        word, because its own type refuses it: `lost` says what is wrong with it, and where.

        Args:
            wait: Return only when at least so many match.
            timeout: Seconds to wait for them, at most 60.
            filters: `customer`, `model`, `endpoint`, `status_code`, `posted_by` (a fingerprint).

        Raises:
            TimeoutError: Fewer arrived in time.
        """
        return self._entries("logs", wait, timeout, filters)

    def log_requests(self, *, wait: int = 0, timeout: float = 10.0, **filters: object) -> list[dict[str, Any]]:
        """Return the requests to the request-logs API, refused ones too, oldest first.

        Args:
            wait: Return only when at least so many match.
            timeout: Seconds to wait for them, at most 60.
            filters: `endpoint`, `status`, `mode`, `posted_by` (a fingerprint).

        Raises:
            TimeoutError: Fewer arrived in time.
        """
        return self._entries("log-requests", wait, timeout, filters)

    def logs_mode(self, mode: str | int, **options: float | str | None) -> None:
        """Tell the request-logs API how to behave from now on.

        Args:
            mode: `ok`, `slow`, `hang`, `reset`, `garbage`, or a status from 300 to 599. `garbage`, `cut`
                (an answer that breaks off) and `huge` (one of 10 MB) take the records.
            options: `times` (requests for which it holds), `seconds` (for `slow`), `retry_after`,
                `bulk_per_minute`; `poison`, text of a record over which any request fails with 500;
                `unwanted`, text of a record that is refused by itself.

        Raises:
            ValueError: There is no such mode or option.
        """
        self._ask("PUT", "/sandbox/logs-mode", msgspec.json.encode({"mode": mode, **options}))

    def precedence(self, order: str) -> None:
        """Tell the gateway which parameters win from now on; `reset` goes back to the newest order.

        The vendor has turned its order round once, so a request should mean the same in both.

        Args:
            order: `2026-10` (`respan_params`, then the base64 header, then the top level) or `2026-06`
                (the top level, then `respan_params`, then the header).

        Raises:
            ValueError: There is no such order.
        """
        self._ask("PUT", "/sandbox/precedence", msgspec.json.encode({"precedence": order}))

    def register_key(self, key: Secret | str, **facts: float | bool | str | None) -> None:
        """Tell this of an OpenRouter key from now on; one that may pay for no call is refused there too.

        Args:
            key: It.
            facts: `limit`, `usage` (US dollars), `limit_reset` (`daily`, `weekly`, `monthly`), `expires_at`
                (ISO 8601 with a zone), `is_free_tier`, `is_management_key`, `label`.

        Raises:
            ValueError: There is no such fact, or it has no such value.
        """
        revealed = key.reveal() if isinstance(key, Secret) else key
        self._ask("PUT", "/sandbox/keys", msgspec.json.encode({"key": revealed, **facts}))

    def reset(self) -> None:
        """Forget what arrived and was registered, behave again, and let go of every request that is kept waiting."""
        self._ask("POST", "/sandbox/reset", b"")

    def settings(self, **overrides: Any) -> Settings:
        """Return settings for which this sandbox is the vendor.

        Args:
            overrides: Fields of `Settings`.
        """
        fields: dict[str, Any] = {
            "api_key": Secret("sandbox-app-key"),
            "base_url": self.gateway_url,
            "openrouter_base_url": self.openrouter_url,
        }
        return Settings(**(fields | overrides))

    def _entries(self, name: str, wait: int, timeout: float, filters: dict[str, object]) -> list[dict[str, Any]]:
        query = urlencode({"wait": wait, "timeout": timeout, **filters})
        answer = msgspec.json.decode(self._ask("GET", f"/sandbox/{name}?{query}", None, timeout))
        entries: list[dict[str, Any]] = answer[name.replace("-", "_")]
        if len(entries) < wait:
            raise TimeoutError(f"sandbox: {wait} {name} expected within {timeout:g} s, {len(entries)} arrived")
        return entries

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float = 0.0) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method)  # noqa: S310 - http to loopback
        try:
            with self._opener.open(request, timeout=timeout + 10) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as refused:
            with refused:
                raise ValueError(msgspec.json.decode(refused.read())["detail"]) from None


@contextlib.contextmanager
def sandbox() -> Generator[Sandbox]:
    """Run a sandbox on a free port of loopback, on a thread of its own, until the block ends.

    Raises:
        ConfigurationError: uvicorn is not installed.

    Example:
        >>> with sandbox() as vendor:
        ...     vendor.calls()
        []
    """
    require_uvicorn()
    from kwai_middleware.sandbox import server

    with server.BackgroundServer() as running:
        yield Sandbox(running.url)
