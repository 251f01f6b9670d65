"""One bounded request to OpenRouter and its answer: secrets go onto the wire and nowhere else."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio.to_thread
import httpx
import msgspec

from kwai_middleware._delivery import live
from kwai_middleware._delivery.verdict import judge
from kwai_middleware._outbound.tracebacks import drop_inner_frames
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.errors import BlockingCall, ConfigurationError, KwaiError, OpenRouterUnavailable

__all__ = ["Answer", "Question", "aask", "as_secret", "ask", "given", "question", "without"]

_MOST_BYTES: Final = 64 * 1024
_LONGEST_SECRET: Final = 4 * 1024
_LONGEST_TIMEOUT: Final = 600.0
_TROUBLE: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
"""What goes wrong with a network, a vendor, a proxy or the certificates of this machine."""

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request.

    Attributes:
        key: Who asks; None for a request that needs nobody.
        members: Of the JSON that is posted; None for a GET.
        timeout: Seconds for all of it.
    """

    url: str
    key: Secret | None = None
    members: Mapping[str, Secret | str] | None = field(default=None, repr=False)
    timeout: float

    @property
    def is_encrypted(self) -> bool:
        """Whether it travels by TLS. What does not stays on this machine, so no proxy has a part in it."""
        return self.url.startswith("https:")

    def sent(self) -> dict[str, Any]:
        """Return the arguments of the HTTP library's `stream`, secrets revealed."""
        headers = {"user-agent": "kwai-middleware", "accept": "application/json", "accept-encoding": "identity"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key.reveal()}"
        if self.members is None:
            return {"method": "GET", "url": self.url, "headers": headers}
        members = {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.members.items()}
        return {"method": "POST", "url": self.url, "headers": headers, "json": members}

    def client(self, context: ssl.SSLContext) -> dict[str, Any]:
        """Return the arguments of the HTTP library's client."""
        return {
            "verify": context,
            "trust_env": self.is_encrypted,
            "timeout": self.timeout,
            "follow_redirects": False,
        }

    def context(self) -> ssl.SSLContext:
        """Return what the connection is encrypted with. To load the authorities takes many milliseconds."""
        return httpx.create_ssl_context() if self.is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def unanswered(self, error: Exception) -> OpenRouterUnavailable:
        """Return what is wrong, in words that hold nothing of the request."""
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return OpenRouterUnavailable(f"OpenRouter gave no answer within {self.timeout:g} s; try again later")
        # At this point nothing of the request has been sent, so the text can only be the network's.
        is_early = isinstance(error, httpx.ConnectError | httpx.ProxyError)
        reason = f"{type(error).__name__}: {_words(error)}" if is_early else type(error).__name__
        return OpenRouterUnavailable(f"OpenRouter cannot be reached ({reason}); try again later")


@dataclass(slots=True)
class Answer:
    """What came back. Its body may hold a key."""

    status: int
    retry_after: float | None
    body: bytes = field(default=b"", repr=False)

    @property
    def is_good(self) -> bool:
        """Whether the body says what was asked for."""
        return 200 <= self.status < 300

    def takes(self, chunk: bytes) -> bool:
        """Add a piece of the body; returns whether there is room for more."""
        self.body += chunk[: _MOST_BYTES - len(self.body)]
        return len(self.body) < _MOST_BYTES

    def read(self, kind: type[AnswerT]) -> AnswerT | OpenRouterUnavailable:
        """Return what the body says, or why that cannot be said."""
        if not self.is_good:
            return self.trouble()
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return OpenRouterUnavailable(
                f"what answered does not speak as OpenRouter does (HTTP {self.status}): is openrouter_base_url right?"
            )

    def trouble(self) -> OpenRouterUnavailable:
        """Return what is wrong with OpenRouter, whatever it was asked."""
        if self.status == 429:
            detail = "OpenRouter has had too many requests from here (HTTP 429); try again later"
        elif self.status >= 500:
            detail = f"OpenRouter is out of order (HTTP {self.status}); try again later"
        elif self.status < 400:
            detail = (
                f"OpenRouter sends elsewhere (HTTP {self.status}), where no key follows: is openrouter_base_url right?"
            )
        else:
            detail = f"OpenRouter does not know this request (HTTP {self.status}): is openrouter_base_url right?"
        return OpenRouterUnavailable(detail, retry_after=self.retry_after)


def question(
    path: str,
    *,
    settings: Settings | None,
    timeout: float,
    key: Secret | None = None,
    members: Mapping[str, Secret | str] | None = None,
) -> Question:
    """Return a request to OpenRouter's API.

    Raises:
        ConfigurationError: The time-out is none, or a variable of the environment has a value that is not allowed.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT:
        raise ConfigurationError(f"timeout: seconds, more than 0 and at most {_LONGEST_TIMEOUT:g}")
    settings = Settings.from_env() if settings is None else settings
    return Question(url=settings.openrouter_base_url + path, key=key, members=members, timeout=timeout)


def ask(question: Question, method: str) -> Answer | OpenRouterUnavailable:
    """Send a request and wait for the answer.

    Args:
        question: It.
        method: Name of the function that asks, whose twin has an `a` in front.

    Raises:
        BlockingCall: An event loop runs on this thread.
    """
    if live.has_event_loop():
        raise BlockingCall(f"{method}() would stop the event loop that runs on this thread; await a{method}() instead")
    try:
        return _answered(question)
    except _TROUBLE as error:
        return question.unanswered(error)
    except BaseException as error:
        drop_inner_frames(error)
        raise


async def aask(question: Question) -> Answer | OpenRouterUnavailable:
    """Do as `ask` does, while the event loop (asyncio or trio) goes on."""
    try:
        with anyio.fail_after(question.timeout):
            return await _aanswered(question)
    except _TROUBLE as error:
        return question.unanswered(error)
    except BaseException as error:
        drop_inner_frames(error)
        raise


def _answered(question: Question) -> Answer:
    until = time.monotonic() + question.timeout
    with httpx.Client(**question.client(question.context())) as client, client.stream(**question.sent()) as response:
        answer = _begun(response)
        for chunk in response.iter_raw() if answer.is_good else ():
            if not answer.takes(chunk):
                break
            if time.monotonic() > until:
                raise TimeoutError
        return answer


async def _aanswered(question: Question) -> Answer:
    context = await anyio.to_thread.run_sync(question.context)
    async with (
        httpx.AsyncClient(**question.client(context)) as client,
        client.stream(**question.sent()) as response,
    ):
        answer = _begun(response)
        if answer.is_good:
            # A loop that is left leaves the library's generators open, and trio does not close them.
            with anyio.CancelScope() as reading:
                async for chunk in response.aiter_raw():
                    if not answer.takes(chunk):
                        reading.cancel()
        return answer


def _begun(response: httpx.Response) -> Answer:
    asked_to_wait = judge(response.status_code, response.headers.get("retry-after"), b"", now=time.time()).after
    return Answer(response.status_code, asked_to_wait)


def _words(error: BaseException) -> str:
    """The text of an error, or of what it comes from: trio's own have none."""
    words, origin = str(error), error.__cause__ or error.__context__
    while not words and origin is not None:
        words, origin = str(origin), origin.__cause__ or origin.__context__
    return words


def as_secret(value: object) -> Secret | None:
    """Return what somebody pasted or a browser brought as a secret; None when it cannot be one."""
    if isinstance(value, Secret):
        return value if len(value.reveal()) <= _LONGEST_SECRET else None
    if not isinstance(value, str) or len(value) > _LONGEST_SECRET:
        return None
    try:
        return Secret(value.strip())
    except ValueError:
        return None


def without(text: str, key: Secret) -> str:
    """Return a text of OpenRouter's, or nothing when the key stands in it."""
    return "" if key.reveal() in text else text


def given(outcome: AnswerT | KwaiError) -> AnswerT:
    """Return the outcome of a question, or raise it: here, where no variable holds what was sent or answered."""
    if isinstance(outcome, KwaiError):
        raise outcome
    return outcome
