"""What is asked, what answers at once, and what has arrived there."""

from __future__ import annotations

import importlib
import json
from typing import Any, Final

from kwai_middleware import Caller, Credential, Secret, Settings

__all__ = [
    "ANSWER", "APP_KEY", "CUSTOMER", "CUSTOMERS_KEY", "DIRECT", "GATEWAY", "HEADERS", "AsyncModel", "Model",
    "conversation", "somebody", "the_apps_settings", "transport_over",
]  # fmt: skip

GATEWAY: Final = "https://api.keywordsai.co/api/chat/completions"
DIRECT: Final = "https://openrouter.ai/api/v1/chat/completions"
CUSTOMER: Final = "acme-4711"
CUSTOMERS_KEY: Final = "sk-or-v1-0123456789abcdef0123456789abcdef"
APP_KEY: Final = "the-apps-own-key"
HEADERS: Final = {"authorization": f"Bearer {APP_KEY}", "content-type": "application/json"}
ANSWER: Final = json.dumps(
    {
        "id": "gen-1",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 400}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "cost": 0.001},
    }
).encode()

_ANSWER_HEADERS: Final = {"content-type": "application/json", "content-length": str(len(ANSWER))}
_SENTENCES: Final = 'She said: "The quick brown fox jumps over the lazy dog."\nAnd then it went on, line after line. '
_LONGEST_MESSAGE: Final = 4000


def conversation(size: int) -> bytes:
    """Return the body of a request of so many bytes: messages of 4 KB with quotes and line ends, and a last one."""

    def message(text: str) -> dict[str, str]:
        return {"role": "user", "content": text}

    def written(*messages: dict[str, str]) -> bytes:
        body = {"model": "m", "temperature": 0.2, "messages": messages}
        return json.dumps(body, separators=(",", ":")).encode()

    long = message(_SENTENCES * (_LONGEST_MESSAGE // len(_SENTENCES)))
    bare = len(written(message("")))
    longs, rest = divmod(size - bare, len(written(long, long)) - len(written(long)))
    return written(*[long] * longs, message(("word " * (rest // 5 + 1))[:rest]))


def somebody() -> Caller:
    """Return the customer for whom all calls are made."""
    return Caller(identifier=CUSTOMER, credentials=(Credential(api_key=Secret(CUSTOMERS_KEY)),))


def the_apps_settings() -> Settings:
    """Return settings that read nothing from the environment."""
    return Settings(api_key=Secret("the-key-for-logs"))


class Model:
    """A transport that reads the request's body as a connection does, and answers at once.

    Args:
        library: httpx, or another one that is like it.

    Attributes:
        keeps: Whether the next request is kept, so that one can look at it.
        body: Of the request that was kept.
        headers: Of the request that was kept.
    """

    def __init__(self, library: Any) -> None:
        self._response = library.Response
        self._byte_stream = library.ByteStream
        self.keeps = False
        self.body = b""
        self.headers: dict[str, str] = {}

    def handle_request(self, request: Any) -> Any:
        """Take a request in."""
        parts = list(request.stream)
        if self.keeps:
            self.keep(b"".join(parts), request.headers)
        return self._response(200, headers=_ANSWER_HEADERS, stream=self._byte_stream(ANSWER))

    def keep(self, body: bytes, headers: Any) -> None:
        """Remember what has arrived."""
        self.body = body
        self.headers = {str(name).lower(): str(value) for name, value in dict(headers).items()}

    def close(self) -> None:
        """Nothing was opened."""


class AsyncModel(Model):
    """The same for asynchronous clients."""

    async def handle_async_request(self, request: Any) -> Any:
        """Take a request in."""
        parts = [part async for part in request.stream]
        if self.keeps:
            self.keep(b"".join(parts), request.headers)
        return self._response(200, headers=_ANSWER_HEADERS, stream=self._byte_stream(ANSWER))

    async def aclose(self) -> None:
        """Nothing was opened."""


class _Pool:
    """Stands where a transport has its connections."""

    def __init__(self, model: Model, core: Any) -> None:
        self._model = model
        self._response = core.Response

    def handle_request(self, request: Any) -> Any:
        for part in request.stream:
            if self._model.keeps:
                self._model.body += part
        if self._model.keeps:
            self._model.keep(self._model.body, {name.decode(): value.decode() for name, value in request.headers})
        return self._response(200, headers=_ANSWER_HEADERS, content=ANSWER)

    def close(self) -> None:
        pass


def transport_over(model: Model, library: Any) -> Any:
    """Return the library's own transport, which has a model in the place of its connections."""
    transport = library.HTTPTransport()
    core = importlib.import_module(library.__name__.replace("httpx", "httpcore"))
    # No public door leads there, and only with its own transport inside does a wrapper do what it does in an app.
    transport._pool = _Pool(model, core)
    return transport
