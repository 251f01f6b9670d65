"""Steps: redirects, which take the app's own request further, and cookies, which gather on the way."""

from __future__ import annotations

from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()


@STEPS.each(["301", "302", "303", "307", "308"])
async def a_redirect_that_is_followed(stage: Stage, status: str) -> Any:
    client = stage.client(follow_redirects=True)
    response = await stage.post(client, f"redirect-{status},ok", headers={"Authorization": "Bearer app", "X-Own": "1"})
    return described(response), [described(each) for each in response.history], dict(client.cookies)


@STEPS.each(["301", "302", "303", "307", "308"])
async def a_redirect_that_is_not_followed(stage: Stage, status: str) -> Any:
    client = stage.client()
    response = await stage.post(client, f"redirect-{status},ok")
    following = response.next_request
    assert following is not None
    return described(response), described(await stage.send(client, following))


@STEPS.each(["302", "307"])
async def a_redirect_to_another_host(stage: Stage, status: str) -> Any:
    client = stage.client(follow_redirects=True, cookies={"own": "1"})
    to = stage.elsewhere("ok").replace("127.0.0.1", "localhost")
    url = stage.url(f"redirect-{status}", to=to)
    response = await stage.settle(client.post(url, content=BODY, headers={"Authorization": "Bearer app"}))
    return described(response), described(response.history[0])


_TARGETS = {
    "relative": "completions?do=ok",
    "another path": "/elsewhere?do=ok",
    "a fragment": "#here",
    "another scheme": "ftp://127.0.0.1/",
    "no host": "http:///elsewhere",
    "no url": "http://[",
    "odd characters": "/ü é?do=ok",
    "bad port": "http://127.0.0.1:99999/",
    "nowhere": "http://127.0.0.1:1/",
}


@STEPS.each(_TARGETS.items())
async def a_redirect_to(stage: Stage, case: Any) -> Any:
    client = stage.client(follow_redirects=True)
    url = stage.library.URL(f"{stage.base}/chat/completions", params={"do": "redirect-307,ok", "to": case[1]})
    first = await stage.outcome(lambda: client.post(url, content=BODY))
    return first, (await stage.post(client, "ok")).status_code


@STEPS.each([0, 1, 3])
async def too_many_redirects(stage: Stage, most: int) -> Any:
    client = stage.client(follow_redirects=True, max_redirects=most)
    return await stage.outcome(lambda: stage.post(client, "redirect-307"))


@STEPS.step
async def a_redirect_followed_by_one_call_only(stage: Stage) -> Any:
    client = stage.client()
    first = await stage.post(client, "redirect-308,ok", follow_redirects=True)
    second = await stage.post(stage.client(follow_redirects=True), "redirect-308", follow_redirects=False)
    return described(first), described(second)


@STEPS.step
async def a_redirect_of_a_streamed_answer(stage: Stage) -> Any:
    client = stage.client(follow_redirects=True)
    async with stage.stream(client, "redirect-307,redirect-307,chunked") as response:
        parts = await stage.iterate(response, "iter_bytes").rest()
    return b"".join(parts), described(response), [described(each) for each in response.history]


@STEPS.not_on_gateways
async def a_redirect_of_a_streamed_upload(stage: Stage) -> Any:
    """The generator is used up by then."""
    client = stage.client(follow_redirects=True)
    return await stage.outcome(lambda: stage.post(client, "redirect-307,ok", content=stage.upload([b"one"])))


@STEPS.step
async def a_redirect_of_a_form(stage: Stage) -> Any:
    client = stage.client(follow_redirects=True)
    return described(await stage.post(client, "redirect-307,ok", data={"a": "1"}))


@STEPS.step
async def a_redirect_into_a_failure(stage: Stage) -> Any:
    """The exception names the second request, which the app never made itself."""
    client = stage.client(follow_redirects=True)
    return await stage.outcome(lambda: stage.post(client, "redirect-307,nothing"))


_JARS = ["cookie,ok", "cookie,cookie-again,ok", "cookie,cookie-gone,ok", "cookie,cookie-aged,ok"]
_JARS += ["cookie-abroad,ok", "cookie-secure,ok", "cookie-junk,ok", "doubled-headers,ok", "redirect-303,ok"]


@STEPS.each(_JARS)
async def cookies(stage: Stage, do: str) -> Any:
    client = stage.client(cookies={"own": "1"}, follow_redirects=True)
    seen = []
    for _ in range(3):
        response = await stage.post(client, do)
        seen.append((described(response), [(each.name, each.value, each.path) for each in client.cookies.jar]))
    return seen


@STEPS.step
async def cookies_of_two_domains(stage: Stage) -> Any:
    client = stage.client()
    client.cookies.set("a", "1", domain="one.example")
    client.cookies.set("a", "2", domain="two.example")
    await stage.post(client, "ok")

    async def ask() -> Any:
        return client.cookies["a"]

    return await stage.outcome(ask), client.cookies.get("a", domain="two.example")


@STEPS.step
async def cookies_of_one_call(stage: Stage) -> Any:
    client = stage.client(cookies={"client": "1"})
    return described(await stage.post(client, "ok", cookies={"call": "2"})), dict(client.cookies)
