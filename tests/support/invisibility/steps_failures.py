"""Steps: time limits of each kind, connections that break, requests that cannot be, and what remains of a client."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, PLACE, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_SOON = 0.03
_LARGE = b'{"model":"' + b"x" * 12_000_000 + b'"}'


@contextlib.contextmanager
def _deaf_listener(*, full: bool) -> Iterator[int]:
    """A port where connections are never accepted; when it is full, they are not even established."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        while full:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(_SOON)
            try:
                filler.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port


@STEPS.each(["silent", "half-a-head-then-silent"])
async def a_read_time_out(stage: Stage, do: str) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, do, timeout=stage.timeout(read=_SOON)))
    return first, (await stage.post(client, "ok")).status_code


@STEPS.each(["iter_raw", "iter_bytes", "iter_lines", "read"])
async def a_read_time_out_in_the_answer(stage: Stage, how: str) -> Any:
    """The limit is tightened once the answer has begun and its first part is there: it cannot strike too early."""
    client = stage.client()
    request = stage.request(client, "stalled")
    response = await stage.send(client, request, stream=True)
    parts: list[Any] = []

    async def read() -> Any:
        if how == "read":
            return await stage.do(response, "read")
        async for part in stage.iterate(response, how):
            parts.append(part)
        return parts

    request.extensions["timeout"]["read"] = _SOON
    outcome = await stage.outcome(read)
    await stage.do(response, "close")
    return outcome, parts, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def a_write_time_out(stage: Stage) -> Any:
    client = stage.client()
    return await stage.outcome(lambda: stage.post(client, "deaf", content=_LARGE, timeout=stage.timeout(write=_SOON)))


@STEPS.step
async def a_pool_time_out(stage: Stage) -> Any:
    client = stage.client(limits=stage.library.Limits(max_connections=1))
    async with stage.stream(client, "gated") as response:
        second = await stage.outcome(lambda: stage.post(client, "ok", timeout=stage.timeout(pool=_SOON)))
        stage.server.gate.set()
        await stage.do(response, "read")
    return second, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def a_connect_time_out(stage: Stage) -> Any:
    client = stage.client(timeout=stage.timeout(connect=_SOON))
    with _deaf_listener(full=True) as port:
        return _without_port(await stage.outcome(lambda: client.post(_at(port), content=BODY)), port)


@STEPS.step
async def a_connect_time_out_of_tls(stage: Stage) -> Any:
    client = stage.client(timeout=stage.timeout(connect=10 * _SOON))  # the connection itself must be made in time
    with _deaf_listener(full=False) as port:
        url = _at(port).replace("http:", "https:")
        return _without_port(await stage.outcome(lambda: client.post(url, content=BODY)), port)


def _at(port: int) -> str:
    return f"http://127.0.0.1:{port}/chat/completions"


def _without_port(value: Any, port: int) -> Any:
    """The listener of this step alone has another port each time."""
    if isinstance(value, dict):
        return {name: _without_port(each, port) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_port(each, port) for each in value]
    if isinstance(value, bytes):
        return value.replace(str(port).encode(), b"PORT")
    return value.replace(str(port), "PORT") if isinstance(value, str) else value


@STEPS.each([("none", None), ("number", 10), ("four", (10, 10, 10, 10))])
async def a_time_limit_in_another_form(stage: Stage, case: Any) -> Any:
    return described(await stage.post(stage.client(), "ok", timeout=case[1]))


@STEPS.step
async def a_server_that_is_not_there(stage: Stage) -> Any:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/{PLACE}/chat/completions"
        return _without_port(await stage.outcome(lambda: stage.client().post(url, content=BODY)), port)


@STEPS.step
async def a_host_that_is_not_there(stage: Stage) -> Any:
    return await stage.outcome(lambda: stage.client().post("http://no-such-host.invalid/", content=BODY))


@STEPS.step
async def no_tls_where_tls_is_wanted(stage: Stage) -> Any:
    url = stage.url("ok").replace("http:", "https:")
    return await stage.outcome(lambda: stage.client().post(url, content=BODY))


@STEPS.step
async def tls_where_none_is_wanted(stage: Stage) -> Any:
    url = stage.url("ok", base=stage.secure_base).replace("https:", "http:")
    return await stage.outcome(lambda: stage.client().post(url, content=BODY))


@STEPS.step
async def an_untrusted_certificate(stage: Stage) -> Any:
    url = stage.url("ok", base=stage.secure_base).replace("127.0.0.1", "localhost")
    return await stage.outcome(lambda: stage.client().post(url, content=BODY))


@STEPS.step
async def a_connection_that_is_reset(stage: Stage) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, "reset"))
    return first, (await stage.post(client, "ok")).status_code


@STEPS.each(["iter_raw", "iter_bytes", "iter_text", "iter_lines", "read"])
async def an_answer_that_breaks_off(stage: Stage, how: str) -> Any:
    """The reset is sent only when the first part has been seen, where the way of reading can tell."""
    client = stage.client()
    response = await stage.open(client, "reset-later")

    async def read() -> Any:
        if how in ("read", "iter_lines"):
            stage.server.gate.set()
        if how == "read":
            return await stage.do(response, "read")
        async for _ in stage.iterate(response, how):
            stage.server.gate.set()
        return "the end"

    outcome = await stage.outcome(read)
    later = described(response)
    await stage.do(response, "close")
    return outcome, later, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def an_answer_that_comes_too_early(stage: Stage) -> Any:
    """The server refuses a body before it has read it."""
    client = stage.client()
    return described(await stage.post(client, "early"))


_URLS = {
    "no scheme": "127.0.0.1/chat/completions",
    "empty": "",
    "another scheme": "ftp://127.0.0.1/chat/completions",
    "no host": "http:///chat/completions",
    "bad port": "http://127.0.0.1:99999/chat/completions",
    "no port": "http://127.0.0.1:x/chat/completions",
    "control character": "http://127.0.0.1/\x00",
    "long": "http://127.0.0.1/" + "a" * 70_000,
    "bad host": "http://exa mple/",
    "bad punycode": "http://xn--/",
    "not a text": 7,
}


@STEPS.each(_URLS.items())
async def a_url_that_cannot_be(stage: Stage, case: Any) -> Any:
    return await stage.outcome(lambda: stage.client().post(case[1], content=BODY))


_REFUSED: dict[str, dict[str, Any]] = {
    "line end in a header": {"headers": {"X-Bad": "a\r\nInjected: 1"}},
    "bad header name": {"headers": {"X Bad": "1"}},
    "not ascii in a header": {"headers": {"X-Bad": "€"}},
    "number as header": {"headers": {"X-Bad": 7}},
    "two hosts": {"headers": [("Host", "a"), ("Host", "b")]},
    "bad json": {"json": object()},
    "number as content": {"content": 7},
    "no auth": {"auth": 7},
    "no cookies": {"cookies": 7},
    "no timeout": {"timeout": "soon"},
}


@STEPS.each(_REFUSED.items())
async def a_request_that_cannot_be(stage: Stage, case: Any) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: client.post(stage.url("ok"), **({"content": BODY} | case[1])))
    return first, await stage.outcome(lambda: stage.post(client, "ok", content=b"x"))


@STEPS.step
async def an_exception_in_the_block(stage: Stage) -> Any:
    """The app fails while it reads: the answer is closed, and the exception goes on as it is."""
    client = stage.client()
    error = LookupError("in the block")

    async def fail() -> None:
        async with stage.stream(client, "gated") as response:
            async for _ in stage.iterate(response, "iter_raw"):
                raise error

    caught: Any = None
    try:
        await fail()
    except LookupError as raised:
        caught = raised
    return caught is error, described(caught), (await stage.post(client, "ok")).status_code


@STEPS.step
async def an_exception_while_another_is_handled(stage: Stage) -> Any:
    """The app's own exception stays in the chain, with its frames."""
    client = stage.client()
    try:
        raise ValueError("the app was handling this")
    except ValueError as handled:
        outcome = await stage.outcome(lambda: stage.post(client, "nothing"))
        return outcome, described(handled)


@STEPS.step
async def the_request_of_an_exception(stage: Stage) -> Any:
    """It is the very object that the app made."""
    client = stage.client()
    request = stage.request(client, "nothing")
    caught: Any = None
    try:
        await stage.send(client, request)
    except stage.library.TransportError as error:
        caught = error
    caught.add_note("seen by the app")
    return caught.request is request, described(caught), described(request)
