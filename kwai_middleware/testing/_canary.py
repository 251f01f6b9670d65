"""A customer's key that tells where it has been."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.testing._exceptions import texts_in_exception
from kwai_middleware.testing._journals import journal_report
from kwai_middleware.testing._search import Unsearched, texts_in
from kwai_middleware.testing._spellings import Sighting, Spellings
from kwai_middleware.testing._wire import OutboundRequest, wire_report

__all__ = ["Canary"]


class _SentHeaders(Unsearched, dict[str, str]):
    """Headers that hold the key and do not show it."""

    is_sent = True

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


class Canary(Unsearched):
    """A key of OpenRouter's shape, made for one test, and everything it was seen in.

    The whole key counts, and any 16 consecutive characters of its random part: plain, in any case,
    backwards, in pieces, URL-encoded, escaped as JSON, HTML or Python do, in hexadecimal, in base64 at
    any alignment, compressed with gzip.

    In pytest ask for the fixture `canary`. It shows the key nowhere itself.

    Attributes:
        key: The key.
        sightings: Where it was seen and does not belong, so far.
        was_used: Whether it paid a call, as far as anything that was handed over so far can tell.
    """

    def __init__(self) -> None:
        self.key = Secret(f"sk-or-v1-{secrets.token_hex(32)}")
        self.sightings: list[Sighting] = []
        self.was_used = False
        self._spellings = Spellings(self.key)
        self._customers: set[str] = set()
        self._watched: list[tuple[str, object]] = []
        self._is_used_expected = True

    def __repr__(self) -> str:
        return f"<Canary {self.key.fingerprint}, sightings: {len(self.sightings)}>"

    def headers(
        self,
        identifier: str | None = "canary",
        more: Mapping[str, str] | None = None,
        *,
        key_header: str = "X-OpenRouter-Key",
        identifier_header: str = "X-Customer-Id",
    ) -> dict[str, str]:
        """Return the headers of a request of the customer whose key it is.

        Args:
            identifier: The customer. None sends the key alone.
            more: Further headers.
            key_header: What your app calls the header of the key.
            identifier_header: What your app calls the header of the customer.
        """
        headers = _SentHeaders(more or {})
        headers[key_header] = self.key.reveal()
        if identifier is not None:
            headers[identifier_header] = identifier
            self._customers.add(identifier)
        return headers

    def caller(self, identifier: str | None = "canary", **fields: Any) -> Caller:
        """Return the customer whose key it is, to be bound with `bind_caller`.

        Args:
            identifier: The customer.
            fields: Further fields of `Caller`.

        Example:
            >>> canary = Canary()
            >>> canary.caller("acme", group="holding").credentials[0].api_key == canary.key
            True
        """
        if identifier is not None:
            self._customers.add(identifier)
        return Caller(identifier=identifier, credentials=(Credential(api_key=self.key),), **fields)

    def check(self, where: str, value: object) -> list[Sighting]:
        """Search a value for the key, now; the test fails at its end when it is there.

        Args:
            where: What it is, for the message.
            value: A response of any HTTP library (its headers, body and history are searched, not the
                request that the test sent) · an exception (its chain, groups, notes, and all frames'
                locals) · a `Path` (the file, or every file below the folder) · a running `Sandbox` (the
                key may pay calls, and be in nothing else) · bytes, text, or any object: what it holds,
                and three levels of attributes.

        Returns:
            What was seen in it.

        Example:
            >>> canary = Canary()
            >>> canary.check("an answer", b'{"error": "no such key"}')
            []
            >>> print(*canary.check("a log line", f"refused: {canary.key.reveal()}"))
            a log line [plain]: refused: sk-or-v1-****
        """
        before = len(self.sightings)
        if isinstance(value, Sandbox):
            self._check_sandbox(where, value)
        elif isinstance(value, BaseException):
            self._see((f"{where}: {path}", text) for path, text in texts_in_exception(value))
        elif isinstance(value, Path):
            for file in [value] if value.is_file() else sorted(each for each in value.rglob("*") if each.is_file()):
                self._see((f"{where}: {file.name}{path}", text) for path, text in texts_in(file.read_bytes()))
        else:
            parts = _parts_of_response(value)
            searched = value if parts is None else parts
            self._see((f"{where}{path}", text) for path, text in texts_in(searched))
        return self.sightings[before:]

    def watch(self, where: str, source: object) -> None:
        """Search something for the key when the test ends, as `check` does.

        Args:
            where: What it is, for the message.
            source: A function that returns what to search, or what to search itself: a list that an
                error reporter's `before_send` fills, a tracing SDK's in-memory exporter, a log file.
        """
        self._watched.append((where, source))

    def sent(self, request: OutboundRequest, *, settings: Settings | None = None) -> list[Sighting]:
        """Look at a request as it goes over the wire: in a mock transport, a test double of a vendor.

        The key may stand where the destination reads the customer's key, and then it `was_used`;
        anywhere else, and in a request to anyone else, it is seen. The app's own copy of a request,
        as event hooks and `response.request` show it, must not have it at all: `check` that one.

        Args:
            request: Of httpx, httpx2 or requests. A body that has not been read is read.
            settings: Those of the client, when it has routes other than the vendors' own.

        Example:
            >>> import httpx
            >>> canary = Canary()
            >>> url, bearer = "https://openrouter.ai/api/v1/chat/completions", f"Bearer {canary.key.reveal()}"
            >>> canary.sent(httpx.Request("POST", url, headers={"authorization": bearer})), canary.was_used
            ([], True)
            >>> len(canary.sent(httpx.Request("POST", "https://evil.example", headers={"authorization": bearer})))
            1
        """
        before = len(self.sightings)
        report = wire_report(request, self.key, settings or Settings())
        self.was_used = self.was_used or report.paid_with > 0
        self._see(report.elsewhere)
        return self.sightings[before:]

    def expect_unused(self) -> None:
        """Say that the key shall not pay for anything in this test, which otherwise fails when it does not."""
        self._is_used_expected = False

    def verify(self, *, used: bool = True) -> None:
        """Search what is watched, and fail when the key was seen, or not used; the fixture does this at the end.

        Args:
            used: Whether to fail when no call was paid with the key, too.

        Raises:
            AssertionError: It was seen, or no call was paid with it. The message lists every sighting,
                and does not hold the key.
        """
        __tracebackhide__ = True
        for where, source in self._watched:
            self.check(where, source() if callable(source) and not isinstance(source, type) else source)
        self._watched.clear()
        faults = [f"{sighting}{_times(count)}" for sighting, count in Counter(self.sightings).items()]
        if self.was_used and not self._is_used_expected:
            faults.append("it paid a call, and the test expected that it does not")
        if used and self._is_used_expected and not self.was_used:
            faults.append(
                "it paid no call that the canary knows of, so the test proves nothing: send `canary.headers()` or bind"
                " `canary.caller()`, and hand over the sandbox (`canary.watch`) or the request that arrives"
                " (`canary.sent`); or say `canary.expect_unused()`"
            )
        if faults:
            lines = [
                f"canary: the customer's key {self.key.fingerprint} was where it should not be, or not where it should"
            ]
            raise AssertionError("\n".join([*lines, *(f"  {number}. {each}" for number, each in enumerate(faults, 1))]))

    def _see(self, texts: Iterable[tuple[str, str]]) -> None:
        for where, text in texts:
            self.sightings += self._spellings.sightings(where, text)

    def _check_sandbox(self, where: str, sandbox: Sandbox) -> None:
        report = journal_report(sandbox, self.key.fingerprint, self._customers)
        self.was_used = self.was_used or report.paid > 0
        masked = self._spellings.masked
        self.sightings += [
            Sighting(masked(f"{where}: {place}"), "fingerprint", masked(text)) for place, text in report.misplaced
        ]
        self._see((f"{where}: {place}", text) for place, text in report.texts)


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


_BODIES: tuple[Callable[[Any], object], ...] = (
    lambda response: response.content,
    lambda response: response.get_data(),
    lambda response: response.body,
)


def _parts_of_response(value: Any) -> dict[str, object] | None:
    """Headers, body and history of a response; None when it is none. Its request is the test's own."""
    if not hasattr(value, "status_code") or not hasattr(value, "headers"):
        return None
    parts: dict[str, object] = {"headers": list(value.headers.items())}
    for body in _BODIES:
        try:
            parts["body"] = body(value)
            break
        except AttributeError:
            continue
    parts["history"] = [_parts_of_response(each) for each in getattr(value, "history", ())]
    return parts
