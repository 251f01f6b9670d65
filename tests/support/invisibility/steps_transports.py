"""Steps: what lies between a client and a server: proxies, mounted transports, limits on connections, encryption."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


@STEPS.step
async def a_proxy(stage: Stage) -> Any:
    client = stage.client(proxy=stage.origin)
    return [described(await stage.post(client, do)) for do in ("ok", "gzip", "status-500I")]


@STEPS.step
async def a_proxy_that_knows_the_app(stage: Stage) -> Any:
    proxy = stage.library.Proxy(stage.origin, auth=("user", "word"), headers={"X-Proxy": "1"})
    return described(await stage.post(stage.client(proxy=proxy), "ok"))


@STEPS.step
async def a_tunnel_through_a_proxy(stage: Stage) -> Any:
    client = stage.client(proxy=stage.server.proxy_url)
    first = await stage.settle(client.post(stage.url("chunked", base=stage.secure_base), content=BODY))
    second = await stage.settle(client.post(stage.url("ok", base=stage.secure_base), content=BODY))
    return described(first), described(second)


@STEPS.step
async def a_proxy_that_refuses_a_tunnel(stage: Stage) -> Any:
    client = stage.client(proxy=stage.origin)
    url = stage.url("ok", base=stage.secure_base)
    return await stage.outcome(lambda: client.post(url, content=BODY))


@STEPS.each(["nothing", "garbage", "proxy-refuses"])
async def a_proxy_that_fails(stage: Stage, do: str) -> Any:
    client = stage.client(proxy=stage.origin)
    return await stage.outcome(lambda: stage.post(client, do))


@STEPS.step
async def a_proxy_that_is_not_there(stage: Stage) -> Any:
    client = stage.client(proxy="http://127.0.0.1:1")
    return await stage.outcome(lambda: stage.post(client, "ok"))


@STEPS.each(["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1:x", 7])
async def a_proxy_that_cannot_be(stage: Stage, proxy: Any) -> Any:
    async def made() -> Any:
        return type(stage.client(proxy=proxy)).__name__

    outcome = await stage.outcome(made)
    return outcome if isinstance(outcome, str) else (outcome["type"], outcome["text"])


@STEPS.each(["HTTP_PROXY", "ALL_PROXY", "http_proxy", "HTTPS_PROXY"])
async def a_proxy_of_the_environment(stage: Stage, variable: str) -> Any:
    with _environment(**{variable: stage.origin}):
        return described(await stage.post(stage.client(), "ok")), described(
            await stage.post(stage.client(trust_env=False), "ok")
        )


@STEPS.each(["127.0.0.1", "localhost", "*", "127.0.0.1:1", "other.example, 127.0.0.1"])
async def no_proxy_of_the_environment(stage: Stage, hosts: str) -> Any:
    with _environment(ALL_PROXY=stage.origin, NO_PROXY=hosts):
        return described(await stage.post(stage.client(), "ok"))


@STEPS.step
async def a_mounted_transport(stage: Stage) -> Any:
    real = stage.flavour.real_transport_class
    client = stage.client(mounts={"all://127.0.0.1": real(retries=1), "all://localhost": None})
    other = stage.url("ok").replace("127.0.0.1", "localhost")
    return described(await stage.post(client, "ok")), described(await stage.settle(client.post(other, content=BODY)))


@STEPS.step
async def a_mounted_transport_for_other_hosts(stage: Stage) -> Any:
    client = stage.client(mounts={"https://": stage.flavour.real_transport_class(), "all://*.example": None})
    return described(await stage.post(client, "ok"))


@STEPS.step
async def a_mounted_imitation(stage: Stage) -> Any:
    """Answers that are whole when they come."""
    seen: list[Any] = []

    def imitate(request: Any) -> Any:
        seen.append((request.method, str(request.url)))
        return stage.library.Response(200, json={"n": 1}, headers={"X-From": "mock"}, extensions={"own": 1})

    inner = stage.library.MockTransport(imitate)
    kind = stage.library.AsyncBaseTransport if stage.asynchronous else stage.library.BaseTransport
    one_kind = type("Imitation", (kind,), {name: getattr(inner, name) for name in _handlers(stage)})
    client = stage.client(mounts={"all://127.0.0.1": one_kind()})
    response = await stage.post(client, "ok")
    streamed = await stage.open(client, "ok")
    before = described(streamed)
    parts = await stage.iterate(streamed, "iter_bytes").rest()
    return described(response), before, parts, described(streamed), seen, response.extensions


def _handlers(stage: Stage) -> list[str]:
    return ["handle_async_request"] if stage.asynchronous else ["handle_request"]


@STEPS.each([(kind.__name__, kind) for kind in (ValueError, KeyboardInterrupt, RecursionError)])
async def a_mounted_transport_that_fails(stage: Stage, case: Any) -> Any:
    error = case[1]("own", 7)

    def handle_request(self: Any, request: Any) -> Any:
        raise error

    async def handle_async_request(self: Any, request: Any) -> Any:
        raise error

    kind = stage.library.AsyncBaseTransport if stage.asynchronous else stage.library.BaseTransport
    methods = {"handle_request": handle_request, "handle_async_request": handle_async_request}
    failing = type("Failing", (kind,), methods)
    try:
        await stage.post(stage.client(mounts={"all://127.0.0.1": failing()}), "ok")
    except BaseException as caught:  # noqa: BLE001 - what it is, is what is to be compared
        return caught is error, described(caught)


@STEPS.step
async def an_application_as_a_transport(stage: Stage) -> Any:
    """No network at all: the library calls a WSGI or an ASGI app itself."""
    library = stage.library
    app = library.ASGITransport(_asgi_app) if stage.asynchronous else library.WSGITransport(_wsgi_app)
    client = stage.client(mounts={"all://127.0.0.1": app})
    response = await stage.post(client, "ok")
    streamed = await stage.open(client, "ok")
    parts = await stage.iterate(streamed, "iter_raw").rest()
    return described(response), b"".join(parts), described(streamed)


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"from ", "more_body": True})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def _wsgi_app(environ: Any, start_response: Any) -> Any:
    environ["wsgi.input"].read()
    start_response("200 OK", [("X-App", "1")])
    return iter([b"from ", environ["PATH_INFO"].encode()])


@STEPS.each([("no keep-alive", {"max_keepalive_connections": 0}), ("short", {"keepalive_expiry": 0.0}), ("any", {})])
async def connection_limits(stage: Stage, case: Any) -> Any:
    client = stage.client(limits=stage.library.Limits(**case[1]))
    return [described(await stage.post(client, do)) for do in ("ok", "ok")]


@STEPS.step
async def encryption(stage: Stage) -> Any:
    client = stage.client()
    responses = [
        await stage.settle(client.post(stage.url(do, base=stage.secure_base), content=BODY))
        for do in ("ok", "sse-chunked", "gzip")
    ]
    return [described(each) for each in responses]


@STEPS.each(["verify off", "another name"])
async def encryption_with(stage: Stage, how: str) -> Any:
    client = stage.client(verify=False) if how == "verify off" else stage.client()
    extensions = {"sni_hostname": "127.0.0.1"} if how == "another name" else {}
    url = stage.url("ok", base=stage.secure_base)
    return described(await stage.settle(client.post(url, content=BODY, extensions=extensions)))
