"""The other side, in a process of its own: a model that answers at once, and a sink that takes what anybody exports."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final, NamedTuple

from benchmarks.whole_call import conversation

__all__ = ["CALLERS_KEY", "CHAT", "SEEN", "main"]

_AWAY: Final = 0.02
"""Seconds until the sink answers, as a vendor's in the same region would: who sends while the calls go on finds more to
send at once. It costs nobody CPU."""

CALLERS_KEY: Final = "sk-or-v1-0123456789abcdef0123456789abcdef"
"""The customer's own; the model counts what it pays for."""

CHAT: Final = "/chat/completions"
"""How paths end where the model answers; the path before it says whether it is a gateway's."""

SEEN: Final = "/seen"
"""Answers with what came since it was asked last."""


class _Request(NamedTuple):
    path: str
    headers: dict[bytes, bytes]
    body: bytes


class _Seen:
    """What came; bodies are looked into only when somebody asks, so that nothing slows down what is measured."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[_Request] = []
        self._exported: list[_Request] = []

    def asked(self, request: _Request) -> None:
        with self._lock:
            self._asked.append(request)

    def exported(self, request: _Request) -> None:
        with self._lock:
            self._exported.append(request)

    def taken(self) -> dict[str, int]:
        """Say what came, and begin anew."""
        with self._lock:
            asked, self._asked = self._asked, []
            exported, self._exported = self._exported, []
        bodies = [_plain(request) for request in exported]
        authorization = b"bearer " + CALLERS_KEY.encode()
        return {
            "calls": len(asked),
            "paid_by_caller": sum(each.headers.get(b"authorization", b"").lower() == authorization for each in asked),
            "injected": sum(
                CALLERS_KEY.encode() in each.body and b'"customer_identifier"' in each.body for each in asked
            ),
            "requests": len(exported),
            "bytes": sum(len(request.body) for request in exported),
            "prompts": sum(body.count(conversation.PROMPT_MARK.encode()) for body in bodies),
            "answers": sum(body.count(conversation.ANSWER_MARK.encode()) for body in bodies),
        }


def _plain(request: _Request) -> bytes:
    is_packed = request.headers.get(b"content-encoding", b"").lower() == b"gzip"
    return gzip.decompress(request.body) if is_packed else request.body


def _read(stream: BinaryIO) -> _Request | None:
    line = stream.readline()
    if not line:
        return None
    headers: dict[bytes, bytes] = {}
    while (header := stream.readline()) not in (b"\r\n", b""):
        name, _, value = header.partition(b":")
        headers[name.lower()] = value.strip()
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get(b"content-length", b"0")))
    return _Request(line.split()[1].decode(), headers, body)


def _answer(body: bytes, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind.encode(), len(body), body)


def _exported(request: _Request) -> bytes:
    """Return what whoever exported this expects."""
    if request.path.endswith("/v2/traces"):
        return _answer(b'{"status":"ok"}')
    if request.path.endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        # An empty message of protobuf: all was taken.
        return _answer(b"", "application/x-protobuf")
    if "/bulk/" in request.path:
        taken = {"success_count": len(json.loads(request.body)["logs"]), "error_count": 0, "errors": []}
        return _answer(json.dumps(taken).encode())
    if "/request-logs/" in request.path:
        return _answer(b'{"message":"log successful"}')
    return _answer(b'{"status":1}')


_UNARY: Final = _answer(conversation.UNARY)
_BEGINNING: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNKS: Final = [b"%x\r\n%s\r\n" % (len(event), event) for event in conversation.EVENTS]
_END: Final = b"0\r\n\r\n"


def _chat(request: _Request, send: Callable[[bytes], object]) -> None:
    if not _wants_stream(request.body):
        send(_UNARY)
        return
    send(_BEGINNING)
    for chunk in _CHUNKS:
        send(chunk)
    send(_END)


def _wants_stream(body: bytes) -> bool:
    asked: dict[str, Any] = json.loads(body)
    return bool(asked.get("stream"))


def _serve(connection: socket.socket, seen: _Seen) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as stream:
        while (request := _read(stream)) is not None:
            if request.path.endswith(CHAT):
                seen.asked(request)
                _chat(request, connection.sendall)
            elif request.path == SEEN:
                connection.sendall(_answer(json.dumps(seen.taken()).encode()))
            else:
                seen.exported(request)
                time.sleep(_AWAY)
                connection.sendall(_exported(request))


def _accept(listener: socket.socket) -> None:
    seen = _Seen()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, seen), daemon=True).start()


def main() -> None:
    """Serve on a port of its own, which it prints, until the standard input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        sys.stdin.buffer.read()
