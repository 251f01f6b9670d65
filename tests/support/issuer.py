"""An issuer of tokens: a real HTTP server on loopback that publishes keys, or does what an issuer should not."""

from __future__ import annotations

import base64
import functools
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kwai_middleware.jwt_identity import JWTIdentity
from tests.support.processes import DEADLINE

__all__ = [
    "AUDIENCE", "NAME", "NOW", "Clock", "Issuer", "bearer", "claims", "issuer", "jwk", "key", "part", "pem", "signed",
]  # fmt: skip

NAME = "https://issuer.example/"
AUDIENCE = "https://api.example/"
NOW = 1_800_000_000.0

Answer = tuple[int, Mapping[str, str], bytes]


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def key(kind: str, name: str = "first") -> Any:
    """A private key of a kind: the curve's name, or RSA with its bits. Each name has its own."""
    return _made(kind, name)


@functools.cache
def _made(kind: str, name: str) -> Any:
    curves = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1}
    if kind in curves:
        return ec.generate_private_key(curves[kind]())
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    return {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey}[kind].generate()


def pem(private: Any) -> str:
    """The public half of a key."""
    text: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def jwk(private: Any, alg: str, /, **more: Any) -> dict[str, Any]:
    """The public half of a key as an issuer publishes it."""
    found: dict[str, Any] = jwt.get_algorithm_by_name(alg).to_jwk(private.public_key(), as_dict=True)
    return {name: value for name, value in (found | {"alg": alg, "use": "sig"} | more).items() if value is not None}


def part(content: Any) -> str:
    """One part of a token: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(payload: Any, private: Any, alg: str = "ES256", header: Any = None) -> str:
    """A token of any content and any header, signed."""
    if not isinstance(header, bytes):
        header = {"alg": alg, "typ": "JWT", "kid": "first"} | (header or {})
        header = {name: value for name, value in header.items() if value is not None}
    content = f"{part(header)}.{part(payload)}"
    return f"{content}.{part(jwt.get_algorithm_by_name(alg).sign(content.encode(), private))}"


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim out."""
    all_ = {"iss": NAME, "aud": AUDIENCE, "sub": "acme", "iat": NOW - 60, "exp": NOW + 3600} | more
    return {name: value for name, value in all_.items() if value is not None}


def bearer(token: str) -> list[tuple[str, str]]:
    """The header that a token comes in."""
    return [("authorization", f"Bearer {token}")]


class Issuer:
    """Publishes keys and counts who asks for them.

    Attributes:
        members: What it publishes.
        answer: What it answers instead; None for the keys.
        fetches: How often it was asked.
    """

    def __init__(self) -> None:
        self.members: list[Any] = [jwk(key("P-256"), "ES256", kid="first")]
        self.answer: Callable[[BaseHTTPRequestHandler], Answer | None] | None = None
        self.fetches = 0
        self._port = 0
        self._reserved: socket.socket | None = None
        self._asked = threading.Condition()
        self._gates: list[threading.Event] = []
        self._server: ThreadingHTTPServer | None = None
        self.come_back()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def identity(self, clock: Callable[[], float] | None = None, **more: Any) -> JWTIdentity:
        """What believes this issuer, by a clock that stands still unless another one is given."""
        options: dict[str, Any] = {"issuer": NAME, "audience": AUDIENCE, "clock": clock or Clock()}
        return JWTIdentity(**({"jwks_url": self.url} | options | more))

    def token(self, name: str = "first", **more: Any) -> str:
        """A good token, signed with the key of that name, whether it is published or not."""
        return signed(claims(**more), key("P-256", name), header={"kid": name})

    def publish(self, *names: str) -> None:
        """Publish the keys of these names and no others."""
        self.members = [jwk(key("P-256", name), "ES256", kid=name) for name in names]

    def hold_next(self) -> threading.Event:
        """Let the next one who asks wait until the event that is returned is set."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def wait_until_asked(self, times: int) -> None:
        """Return when so many fetches have begun in all."""
        with self._asked:
            assert self._asked.wait_for(lambda: self.fetches >= times, DEADLINE)

    def go_down(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            # Nobody else gets the port meanwhile: a socket that does not listen refuses connections.
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", self._port))

    def come_back(self) -> None:
        """Listen, on the same port as before."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
                pass

        self._let_go()
        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = server.server_port
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._server = server

    def _let_go(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._asked:
            gate = self._gates.pop(0) if self._gates else None
            self.fetches += 1
            self._asked.notify_all()
        if gate is not None:
            gate.wait(DEADLINE)
        answer = (200, {}, json.dumps({"keys": self.members}).encode())
        if self.answer is not None:
            special = self.answer(handler)
            if special is None:
                return
            answer = (special[0], dict(special[1]), special[2])
        status, headers, body = answer
        try:
            handler.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            return  # whoever asked has had enough


@contextmanager
def issuer() -> Iterator[Issuer]:
    """An issuer that is there until the block ends."""
    running = Issuer()
    try:
        yield running
    finally:
        for gate in running._gates:
            gate.set()
        running.go_down()
        running._let_go()
