"""The process of one revision: the work that every request and call pays for, through public doors.

Told and answering as `worker.py` is; a round measures all of the hot paths once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2

import kwai_middleware
from kwai_middleware import ASGIMiddleware, Caller, Credential, HeaderIdentity, Secret, Settings, WSGIMiddleware
from kwai_middleware.httpx2_transport import KwaiTransport

__all__ = ["PATHS"]

_HEADERS: Final = [
    (b"host", b"app.example"), (b"user-agent", b"Mozilla/5.0"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip"),
    (b"x-customer-id", b"acme-4711"), (b"x-openrouter-key", b"sk-or-v1-0123456789abcdef0123456789abcdef"),
]  # fmt: skip
_ENVIRON: Final = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "5", "SERVER_NAME": "app",
    "HTTP_HOST": "app.example", "HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_X_CUSTOMER_ID": "acme-4711",
    "HTTP_X_OPENROUTER_KEY": "sk-or-v1-0123456789abcdef0123456789abcdef",
}  # fmt: skip
_CALLER: Final = Caller(
    identifier="acme-4711", credentials=(Credential(api_key=Secret("sk-or-v1-0123456789abcdef0123456789abcdef")),)
)
_BODY: Final = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 2000}]}).encode()
_ANSWER: Final = json.dumps(
    {
        "id": "gen-1",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 400}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "cost": 0.001},
    }
).encode()
_CHUNK: Final = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_CHUNKS: Final = 1000
_GATEWAY: Final = "https://api.keywordsai.co/api/chat/completions"
_DIRECT: Final = "https://openrouter.ai/api/v1/chat/completions"


class _Chunks(httpx2.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for _ in range(_CHUNKS):
            yield _CHUNK


class _Model(httpx2.BaseTransport):
    """Answers at once: whole, or in chunks where the request says so."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if "x-stream" in request.headers:
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks())
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=httpx2.ByteStream(_ANSWER))


def _asgi() -> Callable[[int], None]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def nothing(*_: Any) -> Any:
        return None

    middleware = ASGIMiddleware(app, identify=HeaderIdentity(trusted_peers=["127.0.0.1"]))

    async def requests(times: int) -> None:
        for _ in range(times):
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "headers": list(_HEADERS),
                "client": ("127.0.0.1", 5),
            }
            await middleware(scope, nothing, nothing)

    runner = asyncio.Runner()
    return lambda times: runner.run(requests(times))


def _wsgi() -> Callable[[int], None]:
    middleware = WSGIMiddleware(lambda environ, start: [b""], identify=HeaderIdentity(trusted_peers=["127.0.0.1"]))

    def requests(times: int) -> None:
        for _ in range(times):
            middleware(dict(_ENVIRON), lambda *_: lambda _: None)

    return requests


def _calls(url: str, deliver: Callable[[Any], object], headers: dict[str, str]) -> Callable[[int], None]:
    settings = Settings(api_key=Secret("app-key"))
    client = httpx2.Client(transport=KwaiTransport(_Model(), settings=settings, deliver=deliver))

    def calls(times: int) -> None:
        with kwai_middleware.bind_caller(_CALLER):
            for _ in range(times):
                with client.stream("POST", url, content=_BODY, headers=headers) as response:
                    for _ in response.iter_raw():
                        pass

    return calls


def _forget(_: object) -> None:
    return None


def _record() -> Callable[[int], None]:
    kept: list[Any] = []
    _calls(_DIRECT, kept.append, {})(1)
    pending = kept[0]
    return lambda times: [pending.build() for _ in range(times)].clear()


PATHS: Final[dict[str, tuple[Callable[[], Callable[[int], None]], int]]] = {
    "request, ASGI": (_asgi, 2000),
    "request, WSGI": (_wsgi, 2000),
    "call through the gateway, 10 KB": (lambda: _calls(_GATEWAY, _forget, {}), 200),
    "call to OpenRouter, 10 KB": (lambda: _calls(_DIRECT, _forget, {}), 200),
    "stream of 1,000 chunks": (lambda: _calls(_DIRECT, _forget, {"x-stream": "1"}), 10),
    "record built": (_record, 200),
}
"""What is measured, and how often it is done in one round."""


def main() -> None:
    """Serve rounds until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    prepared = {name: (make(), times) for name, (make, times) in PATHS.items()}
    print(json.dumps({"package": os.path.dirname(kwai_middleware.__file__)}), file=answers)
    for _ in sys.stdin:
        measured: dict[str, float] = {}
        for name, (work, times) in prepared.items():
            gc.collect()
            begun = time.thread_time()
            work(times)
            measured[name] = (time.thread_time() - begun) / times * 1e6
        print(json.dumps(measured), file=answers)


if __name__ == "__main__":
    main()
