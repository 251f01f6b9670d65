"""Steps: every kind of request, and every kind of body that is at hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_BOUNDARY = {"Content-Type": "multipart/form-data; boundary=fixed"}


@STEPS.each(["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "QUERY", "purge"])
async def another_method(stage: Stage, method: str) -> Any:
    """On the endpoint itself, where only POST is a model call."""
    client = stage.client()
    return described(await stage.settle(client.request(method, stage.url("ok"), content=BODY)))


@STEPS.each(["get", "head", "options", "delete", "put", "patch", "post"])
async def a_methods_own_function(stage: Stage, method: str) -> Any:
    return described(await stage.settle(getattr(stage.client(), method)(stage.elsewhere("ok"))))


_HEADERS: dict[str, Any] = {
    "dict": {"X-One": "1", "x-two": "2"},
    "list with doubles": [("X-One", "1"), ("X-One", "2"), ("x-one", "3")],
    "bytes": [(b"X-Bytes", b"\xff")],
    "own authorization": {"Authorization": "Bearer app"},
    "lower authorization": {"authorization": "Bearer app"},
    "own host": {"Host": "elsewhere.example"},
    "own accept": {"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "me"},
    "close": {"Connection": "close"},
    "expect": {"Expect": "100-continue"},
    "odd length header": {"CONTENT-LENGTH": str(len(BODY))},
    "idempotency": {"Idempotency-Key": "k", "x-stainless-retry-count": "0"},
}


@STEPS.each(_HEADERS.items())
async def a_request_with_headers(stage: Stage, case: Any) -> Any:
    client = stage.client(headers={"X-Client": "yes"})
    return described(await stage.post(client, "ok", headers=case[1])), described(await stage.post(client, "ok"))


@STEPS.each([("dict", {"a": "1", "b": ["2", "3"], "c": ""}), ("text", "a=1&b=%2F"), ("pairs", [("ü", "é")])])
async def a_request_with_parameters(stage: Stage, case: Any) -> Any:
    client = stage.client(params={"do": "ok", "client": "1"})
    url = f"{stage.base}/chat/completions"
    return described(await stage.settle(client.post(url, params=case[1], content=BODY)))


@STEPS.each(["", "/", "//", "/../completions", "/%2e", ";v=1"])
async def a_path_with_an_end(stage: Stage, end: str) -> Any:
    client = stage.client()
    url = f"{stage.base}/chat/completions{end}?do=ok"
    return described(await stage.settle(client.post(url, content=BODY)))


@STEPS.step
async def a_base_url(stage: Stage) -> Any:
    client = stage.client(base_url=f"{stage.base}/")
    first = await stage.settle(client.post("chat/completions", content=BODY, params={"do": "ok"}))
    second = await stage.settle(client.post("/chat/completions", content=BODY))
    return described(first), described(second)


@STEPS.step
async def a_name_and_a_word_in_the_url(stage: Stage) -> Any:
    url = stage.url("ok").replace("://", "://user:word@")
    return described(await stage.settle(stage.client().post(url, content=BODY)))


@STEPS.step
async def another_name_of_the_host(stage: Stage) -> Any:
    url = stage.url("ok").replace("127.0.0.1", "localhost")
    return described(await stage.settle(stage.client().post(url, content=BODY)))


@STEPS.step
async def a_fragment(stage: Stage) -> Any:
    return described(await stage.settle(stage.client().post(f"{stage.url('ok')}#part", content=BODY)))


_JSON: dict[str, dict[str, Any]] = {
    "json": {"json": {"model": "m", "stream": True, "n": 1.5, "text": "é"}},
    "text": {"content": BODY.decode()},
    "bytes with blanks": {"content": b'  {"model" : "m" , "a":[1, 2] }  '},
    "empty object": {"content": b"{}"},
    "large": {"content": b'{"model":"' + b"m" * 300_000 + b'"}'},
    "escapes": {"content": rb'{"model":"m","messages":"\u00e9\ud83d\ude00\n\"{}"}'},
}


@STEPS.each(_JSON.items())
async def a_body_in_memory(stage: Stage, case: Any) -> Any:
    client = stage.client()
    request = client.build_request("POST", stage.url("ok"), **case[1])
    before = described(request)
    response = await stage.send(client, request)
    return before, described(response), described(request), response.request is request


_OTHER: dict[str, dict[str, Any]] = {
    "none": {"content": None},
    "empty": {"content": b""},
    "text": {"content": "no JSON"},
    "not utf-8": {"content": b"\xff\xfe"},
    "array": {"content": b"[1]"},
    "infinity": {"content": b'{"n": Infinity}'},
    "form": {"data": {"a": "1", "b": ["2", "3"]}},
    "two objects": {"content": b"{}{}"},
}


@STEPS.each(_OTHER.items())
async def a_body_that_is_no_object(stage: Stage, case: Any) -> Any:
    client = stage.client()
    request = client.build_request("POST", stage.url("ok"), **case[1])
    response = await stage.send(client, request)
    return described(response), described(request), response.request is request


_FILES: dict[str, dict[str, Any]] = {
    "file": {"files": {"file": ("a.txt", b"hello", "text/plain")}},
    "file and form": {"files": {"file": b"hello"}, "data": {"a": "1"}},
    "files": {"files": [("file", ("a", b"1")), ("file", ("b", b"2"))]},
    "text file": {"files": {"file": ("a", b"text", "text/plain", {"X-Part": "1"})}},
}


@STEPS.each(_FILES.items(), gateway=False)
async def a_form_with_files(stage: Stage, case: Any) -> Any:
    response = await stage.settle(stage.client().post(stage.url("ok"), headers=_BOUNDARY, **case[1]))
    return described(response)


@STEPS.not_on_gateways
async def a_form_with_an_open_file(stage: Stage) -> Any:
    with Path(__file__).open("rb") as file:  # noqa: ASYNC230 - that the library reads it, is what this is about
        response = await stage.settle(
            stage.client().post(stage.url("ok"), headers=_BOUNDARY, files={"file": ("a.py", file)})
        )
        return described(response), file.closed


@STEPS.not_on_gateways
async def an_open_file(stage: Stage) -> Any:
    content = io.BytesIO(BODY * 3000)
    return await stage.outcome(lambda: stage.post(stage.client(), "ok", content=content)), content.closed


@STEPS.step
async def a_request_sent_twice(stage: Stage) -> Any:
    client = stage.client()
    request = stage.request(client, "ok")
    first, second = await stage.send(client, request), await stage.send(client, request)
    return described(first), described(second), described(request), first.request is second.request is request


@STEPS.step
async def a_request_made_by_hand(stage: Stage) -> Any:
    """Without the client's headers and time limits."""
    request = stage.library.Request("POST", stage.url("ok"), content=BODY)
    response = await stage.send(stage.client(), request)
    return described(response), response.request is request


@STEPS.step
async def a_request_without_a_host_header(stage: Stage) -> Any:
    client = stage.client()
    request = stage.request(client, "ok")
    del request.headers["host"]
    return await stage.outcome(lambda: stage.send(client, request))


@STEPS.step
async def a_request_changed_before_it_goes(stage: Stage) -> Any:
    client = stage.client()
    request = stage.request(client, "ok")
    request.headers["X-Later"] = "1"
    request.extensions["own"] = "thing"
    response = await stage.send(client, request)
    return described(response), described(request), response.request.extensions["own"]


@STEPS.step
async def a_request_that_is_read_again(stage: Stage) -> Any:
    client = stage.client()
    request = stage.request(client, "ok")
    await stage.send(client, request)
    return request.read(), described(request)


@STEPS.step
async def many_calls_on_one_connection(stage: Stage) -> Any:
    client = stage.client()
    return [(await stage.post(client, "ok")).status_code for _ in range(5)]


@STEPS.step
async def a_connection_that_the_server_closed(stage: Stage) -> Any:
    """It is found out when it is wanted again, and another is opened."""
    client = stage.client()
    first = await stage.post(client, "closed-quietly")
    gone = stage.server.wait_until_idle()
    return gone, first.status_code, described(await stage.post(client, "ok"))
