"""What only the WSGI door has: bodies that are read after the app has returned, and threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import msgspec
import pytest
import structlog

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import Binding, Slot, bind_caller, current_caller
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._secret import Secret
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.errors import BlockingCall
from kwai_middleware.identity import HeaderIdentity
from kwai_middleware.wsgi import WSGIMiddleware
from tests.apps.doors import ASGIDoor, Seen, WSGIDoor

ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")
HEADERS = [("x-customer-id", "acme")]


def who() -> str:
    """Who is current, for us and for structlog, and on which thread."""
    caller = current_caller()
    logged = structlog.contextvars.get_contextvars().get("customer_id")
    assert logged == (None if caller is None else caller.identifier)
    return f"{logged}"


class Body:
    """A body that notes who was current at each of its steps.

    Args:
        steps: How many chunks it has.
        at_step: Called within each step.
        at_close: Called within `close`.
    """

    def __init__(
        self, steps: int = 3, at_step: Callable[[], Any] = lambda: None, at_close: Callable[[], Any] = lambda: None
    ) -> None:
        self.noted: list[str] = []
        self.closed: list[str] = []
        self._left = steps
        self._at_step = at_step
        self._at_close = at_close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        self.noted.append(who())
        self._at_step()
        return b"chunk"

    def close(self) -> None:
        """Note who was current."""
        self.closed.append(who())
        self._at_close()


def answer(body: Any, headers: Any = HEADERS, through: Callable[[Any], Any] = lambda app: app, **environ: Any) -> Any:
    """What the middleware hands to the server for an app that returns `body`."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    made = WSGIDoor().environ(headers, "GET", "/", ("127.0.0.1", 5))
    return WSGIMiddleware(through(app))({**made, **environ}, lambda status, headers, exc_info=None: None)


class TestBodies:
    """The body of a response stays in the context of its request."""

    @pytest.mark.parametrize("headers", [HEADERS, []])
    def test_each_step_and_close_run_for_the_caller(self, headers: Any) -> None:
        """Read to its end and closed, a stream has seen the caller at each step, and the thread never has."""
        body, expected = Body(), "acme" if headers else "None"
        with bind_caller(BETA):
            sent = answer(body, headers)
            assert [b"chunk"] * 3 == [chunk for chunk in sent if who() == "beta"]
            sent.close()
            assert who() == "beta"
        assert [expected] * 3 == body.noted
        assert [expected] == body.closed

    def test_a_stream_half_read_is_closed_for_the_caller(self) -> None:
        """A client that goes away ends the stream in the middle; the generator's end runs for its caller."""
        ends: list[str] = []

        def stream() -> Iterator[bytes]:
            try:
                while True:
                    yield who().encode()
            finally:
                ends.append(who())

        sent = answer(stream())
        assert [b"acme", b"acme"] == [next(sent), next(sent)]
        sent.close()
        assert ["acme"] == ends
        assert who() == "None"

    def test_a_stream_never_read_is_closed_for_the_caller(self) -> None:
        """As after a HEAD."""
        body = Body()
        answer(body).close()
        assert [] == body.noted
        assert ["acme"] == body.closed

    def test_a_stream_never_closed_is_closed_by_the_garbage_collector(self) -> None:
        """A server that forgets to close loses nothing, and the close runs for the caller."""
        body = Body()
        sent = answer(body)
        next(sent)
        del sent
        gc.collect()
        assert ["acme"] == body.closed

    def test_close_is_passed_on_once(self) -> None:
        """Servers and middlewares close more than once."""
        body = Body()
        sent = answer(body)
        sent.close()
        sent.close()
        del sent
        gc.collect()
        assert ["acme"] == body.closed

    def test_a_body_without_close_is_fine(self) -> None:
        """Closing is optional in WSGI."""
        sent = answer(iter([b"a", b"b"]))
        assert [b"a", b"b"] == list(sent)
        sent.close()

    def test_a_step_on_another_thread_runs_for_the_caller(self) -> None:
        """A server may read on one thread and close on the next."""
        body = Body()
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            sent = answer(body)
            first.submit(next, sent).result()
            second.submit(next, sent).result()
            second.submit(sent.close).result()
            assert ["None", "None"] == [first.submit(who).result(), second.submit(who).result()]
        assert ["acme", "acme"] == body.noted
        assert ["acme"] == body.closed

    def test_close_on_another_thread_during_a_step(self) -> None:
        """A server that closes while another thread is still inside a step gets through, for the caller."""
        inside, closed = threading.Event(), threading.Event()

        def wait() -> None:
            inside.set()
            assert closed.wait(30)

        body = Body(at_step=wait)
        sent = answer(body)
        with ThreadPoolExecutor(1) as executor:
            step = executor.submit(next, sent)
            assert inside.wait(30)
            sent.close()
            closed.set()
            assert step.result() == b"chunk"
        assert ["acme"] == body.closed
        assert ["acme"] == body.noted

    def test_a_body_that_closes_itself_during_a_step(self) -> None:
        """A step may lead to the close of the same body, on the same thread."""
        sent: list[Any] = []
        body = Body(at_step=lambda: sent[0].close())
        sent.append(answer(body))
        next(sent[0])
        assert ["acme"] == body.closed

    @pytest.mark.parametrize("error", [RuntimeError("the app's own"), ValueError("another")])
    def test_an_exception_of_close_passes_through(self, error: Exception) -> None:
        """Also a RuntimeError, and the close is not repeated for it."""

        def fail() -> None:
            raise error

        body = Body(at_close=fail)
        sent = answer(body)
        with pytest.raises(type(error)) as caught:
            sent.close()
        assert error is caught.value
        assert ["acme"] == body.closed

    def test_an_exception_of_a_step_passes_through(self) -> None:
        """An error in a stream is the app's, and nobody is left."""

        def fail() -> None:
            raise ZeroDivisionError

        sent = answer(Body(at_step=fail))
        with pytest.raises(ZeroDivisionError):
            next(sent)
        sent.close()
        assert who() == "None"

    def test_what_a_stream_binds_stays_from_step_to_step(self) -> None:
        """The steps of one body run in one context, so context variables of the app's last between them."""
        step: contextvars.ContextVar[int] = contextvars.ContextVar("step", default=0)

        def count() -> Iterator[bytes]:
            for _ in range(3):
                step.set(step.get() + 1)
                yield str(step.get()).encode()

        body = map(bytes, count())
        assert [b"1", b"2", b"3"] == list(answer(body))
        assert step.get() == 0

    def test_what_the_view_binds_is_there_in_the_body(self) -> None:
        """The app and its body share one context."""
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

        def app(environ: Any, start_response: Any) -> Any:
            user.set("ada")
            start_response("200 OK", [])
            return (user.get().encode() for _ in range(1))

        environ = WSGIDoor().environ([], "GET", "/", None)
        assert [b"ada"] == list(WSGIMiddleware(app)(environ, lambda *args: None))
        with pytest.raises(LookupError):
            user.get()

    def test_streams_at_the_same_time_do_not_see_each_other(self) -> None:
        """Bodies read by turns on one thread, and on many at once, keep their callers apart."""
        bodies = [Body(steps=50) for _ in range(16)]
        sent = [answer(body, [("x-customer-id", f"c{n}")]) for n, body in enumerate(bodies)]
        for _ in range(25):
            for each in sent:
                next(each)
        with ThreadPoolExecutor(16) as executor:
            assert [[b"chunk"] * 25] * 16 == list(executor.map(list, sent))
            list(executor.map(lambda each: each.close(), sent))
        assert [[f"c{n}"] * 50 for n in range(16)] == [body.noted for body in bodies]
        assert [[f"c{n}"] for n in range(16)] == [body.closed for body in bodies]

    def test_the_referee_finds_nothing(self) -> None:
        """With a protocol checker on both sides, a stream read to its end breaks no rule of WSGI."""
        seen = Seen(request=WSGIDoor().environ(HEADERS, "GET", "/", None))
        body = Body()

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return body

        WSGIDoor().send(WSGIMiddleware(validator(app)), seen)
        assert seen.body == b"chunkchunkchunk"
        assert ["None"] == body.closed


class TestUntouched:
    """Bodies that are not wrapped."""

    @pytest.mark.parametrize("body", [[b"a", b"b"], (b"a",), []])
    def test_lists_and_tuples_are_handed_on_as_they_are(self, body: Any) -> None:
        """They hold nothing that runs, and servers take a content length from them."""
        assert body is answer(body)

    def test_a_list_that_has_more_to_it_is_wrapped(self) -> None:
        """A subclass may run code when it is read or closed."""
        closed: list[str] = []

        class Closing(list[bytes]):
            def close(self) -> None:
                closed.append(who())

        sent = answer(Closing([b"a"]))
        assert [b"a"] == list(sent)
        sent.close()
        assert ["acme"] == closed

    def test_the_servers_file_wrapper_is_handed_on_as_it_is(self) -> None:
        """A server sends a file of its own wrapper by the kernel, when it gets it bare."""
        body = FileWrapper(io.BytesIO(b"file"))
        assert body is answer(body, **{"wsgi.file_wrapper": FileWrapper})
        assert body is not answer(body)

    def test_a_file_wrapper_that_is_no_class_is_left_alone(self) -> None:
        """Some servers offer a function; what it returns cannot be told from other bodies."""
        sent = answer(FileWrapper(io.BytesIO(b"file")), **{"wsgi.file_wrapper": lambda file: FileWrapper(file)})
        assert [b"file"] == list(sent)
        sent.close()


class TestCallables:
    """Callables of the app's on a server's thread."""

    def test_start_response_and_write_work(self) -> None:
        """The old way to send, by the callable that start_response returns, works as without us."""

        def app(environ: Any, start_response: Any) -> Any:
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(who().encode())
            return [b"!"]

        seen = Seen(request=WSGIDoor().environ(HEADERS, "GET", "/", ("127.0.0.1", 5)))
        WSGIDoor().send(WSGIMiddleware(validator(app)), seen)
        assert seen.body == b"acme!"

    def test_start_response_may_be_called_late_and_twice(self) -> None:
        """An app may answer in the first step of its body, and once more with an error."""
        statuses: list[tuple[str, bool]] = []

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                start_response("500 Oops", [], sys.exc_info())
            yield b""

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append((status, exc_info is not None))

        environ = WSGIDoor().environ([], "GET", "/", None)
        assert [b""] == list(WSGIMiddleware(app)(environ, start_response))
        assert [("200 OK", False), ("500 Oops", True)] == statuses

    def test_an_async_callable_cannot_run_where_a_loop_runs(self) -> None:
        """On a thread that runs an event loop the request fails by an error that says what to do; nothing dangles."""

        async def identify(request: InboundRequest) -> Caller:
            raise AssertionError

        async def main() -> None:
            with pytest.raises(BlockingCall, match="make it a plain function"):
                WSGIDoor().ask(identify=identify)

        asyncio.run(main())

    def test_a_future_is_not_closed_like_a_coroutine(self) -> None:
        """What is awaited may be of any kind."""

        class Answer:
            def __await__(self) -> Iterator[Any]:
                yield from asyncio.sleep(0).__await__()
                return ACME

        def identify(request: InboundRequest) -> Any:
            return Answer()

        assert ACME == WSGIDoor().ask(identify=identify).caller

        async def main() -> None:
            with pytest.raises(BlockingCall):
                WSGIDoor().ask(identify=identify)

        asyncio.run(main())

    def test_the_path_has_what_the_app_is_mounted_under(self) -> None:
        """A path is what the client asked for, decoded, also where it is not UTF-8."""
        paths: list[str] = []

        def identify(request: InboundRequest) -> None:
            paths.append(request.path)

        def app(environ: Any, start_response: Any) -> Any:
            return []

        for script_name, path_info in (("/api", "/caf\u00c3\u00a9"), ("", "/\u00ff"), ("/only", "")):
            environ = WSGIDoor().environ([], "GET", "/", None)
            environ |= {"SCRIPT_NAME": script_name, "PATH_INFO": path_info}
            WSGIMiddleware(app, identify=identify)(environ, lambda *args: None)
        assert ["/api/caf\u00e9", "/\ufffd", "/only"] == paths

    def test_headers_that_wsgi_names_otherwise_are_found(self) -> None:
        """Content type and length stand in the environ by names of their own."""
        found: list[str | None] = []

        def identify(request: InboundRequest) -> None:
            found.append(request.header("Content-Type"))

        def app(environ: Any, start_response: Any) -> Any:
            return []

        environ = WSGIDoor().environ([], "POST", "/", None) | {"CONTENT_TYPE": "text/plain"}
        WSGIMiddleware(app, identify=identify)(environ, lambda *args: None)
        assert ["text/plain"] == found


class TestBelowASGI:
    """A WSGI app with a middleware of its own, which a bridge serves below an `ASGIMiddleware`."""

    KEY = Credential(api_key=Secret("sk-or-v1-0123456789abcdef"))

    def ask(self, headers: Any, outer: dict[str, Any], between: Any = contextlib.nullcontext, **inner: Any) -> Seen:
        """Send a request through both doors, and a bridge that keeps the context, as bridges do."""
        seen = Seen()
        door = WSGIDoor()
        app = door.wrap(seen, **inner)

        async def bridge(scope: Any, receive: Any, send: Any) -> None:
            inside = Seen(request=door.environ(scope_headers(scope), scope["method"], scope["path"], scope["client"]))
            with between():
                await asyncio.to_thread(door.send, app, inside)
            await send({"type": "http.response.start", "status": inside.status, "headers": []})
            await send({"type": "http.response.body", "body": inside.body})

        asgi = ASGIDoor()
        asked = Seen(request=asgi.scope(headers, "GET", "/", ("127.0.0.1", 50000)))
        seen.status = asgi.send(ASGIMiddleware(bridge, **outer), asked).status
        return seen

    def test_it_leaves_everything_to_the_outer_one(self) -> None:
        """The key that the ASGI door took out pays inside too, also where the inner one wants it."""
        headers = [("x-customer-id", "acme"), ("x-openrouter-key", self.KEY.api_key.reveal())]
        seen = self.ask(headers, {}, required=True, required_key=True)
        assert seen.status == 200
        assert ACME.with_credentials((self.KEY,)) == seen.caller
        assert seen.customer_id == "acme"

    def test_a_caller_that_the_app_binds_between_the_two_counts(self) -> None:
        """It is not decided anew, from a request without the key that the outer one has taken out."""
        headers = [("x-customer-id", "acme"), ("x-openrouter-key", self.KEY.api_key.reveal())]

        def bind_group() -> Any:
            caller = current_caller()
            assert caller is not None
            return bind_caller(msgspec.structs.replace(caller, group="the app's"))

        seen = self.ask(headers, {}, bind_group)
        assert Caller(identifier="acme", group="the app's", credentials=(self.KEY,)) == seen.caller
        seen = self.ask(headers, {}, bind_group, override=True, identify=lambda request: BETA)
        assert BETA.with_credentials((self.KEY,)) == seen.caller

    def test_an_identity_that_the_outer_one_does_not_believe_is_not_believed(self) -> None:
        """The outer answer counts, also when it is nobody."""
        seen = self.ask([("x-customer-id", "acme")], {"identify": HeaderIdentity(trusted_peers=())})
        assert seen.app_ran
        assert seen.caller is None

    def test_an_overriding_one_has_the_key_that_was_taken_out(self) -> None:
        """It decides anew who the customer is, and the customer's key pays still."""
        headers = [("x-openrouter-key", self.KEY.api_key.reveal())]
        seen = self.ask(headers, {}, override=True, identify=lambda request: BETA)
        assert BETA.with_credentials((self.KEY,)) == seen.caller

    def test_the_context_of_another_request_is_not_taken_for_its_own(self) -> None:
        """A slot that no ASGI door is serving now, such as one that a thread has inherited, counts for nothing."""
        inherited: list[contextvars.Context] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            inherited.append(contextvars.copy_context())
            with bind_caller(BETA):
                inherited.append(contextvars.copy_context())

        async def main() -> None:
            scope = ASGIDoor().scope(HEADERS, "GET", "/", ("127.0.0.1", 50000))
            await ASGIMiddleware(app)(scope, main, main)  # type: ignore[arg-type]  # neither is called

        asyncio.run(main())
        assert ACME == inherited[0].run(current_caller)
        assert inherited[0].run(WSGIDoor().ask).caller is None
        assert inherited[1].run(WSGIDoor().ask).caller is None
        with Binding(Slot(BETA)):
            assert WSGIDoor().ask().caller is None


def scope_headers(scope: Any) -> list[tuple[str, str]]:
    """The headers of a scope as text."""
    return [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
