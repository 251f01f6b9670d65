"""Steps: authentication, which answers an answer, and event hooks, which look on."""

from __future__ import annotations

import netrc
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_TWO_STEPS = ["basic-wanted,ok", "digest-wanted,ok", "digest-md5-wanted,ok", "digest-wanted,digest-wanted,ok", "ok"]
_TWO_STEPS += ["digest-broken,ok", "digest-unknown,ok", "basic-wanted,nothing", "redirect-307,digest-wanted,ok"]


@STEPS.each([(f"{auth}: {do}", auth, do) for auth in ("basic", "digest") for do in _TWO_STEPS])
async def authentication(stage: Stage, case: Any) -> Any:
    _, kind, do = case
    library = stage.library
    auth = library.BasicAuth("user", "word") if kind == "basic" else library.DigestAuth("user", "word")
    client = stage.client(auth=auth, follow_redirects=True)
    first = await stage.outcome(lambda: stage.post(client, do))
    return first, await stage.outcome(lambda: stage.post(client, "ok"))


def _own_auth(stage: Stage, *, requires: str) -> Any:
    """A flow that looks at the answer, and at both bodies where it asks for them."""
    seen: list[Any] = []

    class Own(stage.library.Auth):  # type: ignore[misc,name-defined] # known at run time
        requires_request_body = "request" in requires
        requires_response_body = "response" in requires

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["X-Try"] = "1"
            response = yield request
            seen.append(described(response))
            seen.append(response.request is request)
            if response.status_code == 401:
                request.headers["X-Try"] = "2"
                request.headers["Authorization"] = "Own 2"
                response = yield request
                seen.append(described(response))

    return Own(), seen


@STEPS.each(["nothing", "request", "response", "request and response"])
async def an_authentication_of_the_apps_own(stage: Stage, requires: str) -> Any:
    auth, seen = _own_auth(stage, requires=requires)
    client = stage.client()
    response = await stage.post(client, "basic-wanted,ok", auth=auth)
    return described(response), seen, [described(each) for each in response.history]


@STEPS.not_on_gateways
async def an_authentication_that_reads_an_upload(stage: Stage) -> Any:
    auth, seen = _own_auth(stage, requires="request")
    upload = stage.upload([b"one", b"two"])
    return await stage.outcome(lambda: stage.post(stage.client(), "basic-wanted,ok", auth=auth, content=upload)), seen


@STEPS.step
async def an_authentication_that_asks_another_url(stage: Stage) -> Any:
    """As a token is fetched: its own request, in the middle of the first."""
    library = stage.library

    class Token(library.Auth):  # type: ignore[misc,name-defined] # known at run time
        requires_response_body = True

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            answer = yield library.Request("POST", stage.elsewhere("generation"))
            request.headers["X-Token"] = answer.headers["x-generation-id"]
            yield request

    return described(await stage.post(stage.client(auth=Token()), "ok"))


@STEPS.step
async def an_authentication_that_fails(stage: Stage) -> Any:
    class Failing(stage.library.Auth):  # type: ignore[misc,name-defined] # known at run time
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            response = yield request
            raise LookupError(f"no key after {response.status_code}")

    client = stage.client(auth=Failing())
    return await stage.outcome(lambda: stage.post(client, "ok")), described(await stage.post(client, "ok", auth=None))


@STEPS.step
async def an_authentication_with_two_flows(stage: Stage) -> Any:
    class Both(stage.library.Auth):  # type: ignore[misc,name-defined] # known at run time
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["X-Flow"] = "sync"
            response = yield request
            response.read()

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            request.headers["X-Flow"] = "async"
            response = yield request
            await response.aread()

    return described(await stage.post(stage.client(auth=Both()), "ok"))


@STEPS.step
async def an_authentication_that_is_a_function(stage: Stage) -> Any:
    def sign(request: Any) -> Any:
        request.headers["X-Signature"] = str(len(request.content))
        return request

    return described(await stage.post(stage.client(auth=sign), "ok"))


@STEPS.step
async def authentication_in_the_url(stage: Stage) -> Any:
    url = stage.elsewhere("basic-wanted,ok").replace("://", "://us%20er:wo%2Frd@")
    return described(await stage.settle(stage.client().post(url)))


@STEPS.step
async def authentication_from_a_file(stage: Stage) -> Any:
    place = Path(__file__).with_name("no-such-netrc")
    return await stage.outcome(lambda: _netrc(stage, place)), issubclass(netrc.NetrcParseError, Exception)


def _netrc(stage: Stage, place: Path) -> Any:
    return stage.post(stage.client(auth=stage.library.NetRCAuth(str(place))), "ok")


@STEPS.step
async def event_hooks(stage: Stage) -> Any:
    """Hooks see the app's own request, and may change it."""
    seen: list[Any] = []

    def on_request(request: Any) -> None:
        request.headers["X-Hook"] = "1"
        seen.append(request)

    def on_response(response: Any) -> None:
        seen.append(described(response))
        seen.append(response.request)

    hooks = {"request": [stage.hook(on_request)] * 2, "response": [stage.hook(on_response)]}
    client = stage.client(event_hooks=hooks, follow_redirects=True)
    response = await stage.post(client, "redirect-307,ok")
    requests = [each for each in seen if hasattr(each, "method")]
    identities = [[each is other for other in requests] for each in requests]
    return described(response), [described(each) for each in seen], identities, requests[-1] is response.request


@STEPS.each(["request", "response"])
async def an_event_hook_that_fails(stage: Stage, moment: str) -> Any:
    def fail(thing: Any) -> None:
        raise KeyError("in the hook")

    client = stage.client(event_hooks={moment: [stage.hook(fail)]})
    first = await stage.outcome(lambda: stage.post(client, "chunked"))
    client.event_hooks = {}
    return first, (await stage.post(client, "ok")).status_code


@STEPS.step
async def an_event_hook_that_reads(stage: Stage) -> Any:
    async def read_async(response: Any) -> None:
        await response.aread()

    hook = read_async if stage.asynchronous else (lambda response: response.read())
    client = stage.client(event_hooks={"response": [hook]})
    response = await stage.open(client, "gzip")
    seen = described(response)
    await stage.do(response, "close")
    return seen, described(response)


@STEPS.step
async def an_event_hook_that_raises_for_the_status(stage: Stage) -> Any:
    client = stage.client(event_hooks={"response": [stage.hook(lambda response: response.raise_for_status())]})
    return await stage.outcome(lambda: stage.post(client, "status-500I"))
