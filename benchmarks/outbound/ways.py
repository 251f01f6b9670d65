"""The ways to send a call for a customer: each makes a client, and says what must have arrived."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.outbound.model import (
    APP_KEY,
    CUSTOMER,
    CUSTOMERS_KEY,
    DIRECT,
    GATEWAY,
    Model,
    somebody,
    the_apps_settings,
)
from kwai_middleware import bind_caller

__all__ = ["Broken", "MakeWay", "ParseAndDump", "Way", "abto", "direct", "floor", "gateway", "json_dump",
           "opentelemetry", "orjson_dump", "plain"]  # fmt: skip


class Broken(Exception):
    """A way did not do the work that it is measured for."""


def must(what: str, expected: object, found: object) -> None:
    """Raise `Broken` unless the two are equal."""
    if expected != found:
        raise Broken(f"{what}: expected {expected!r}, found {found!r}"[:1000])


Check = Callable[[bytes, Model], None]
"""Is given the app's own body and what has arrived, after one call; raises `Broken`."""


@dataclass(frozen=True)
class Way:
    """How calls are sent.

    Attributes:
        client: Sends them.
        check: Says whether the work was done.
        url: Where they go.
        around: Is entered before the calls: says for whom they are.
    """

    client: Any
    check: Check
    url: str = GATEWAY
    around: AbstractContextManager[object] = field(default_factory=nullcontext)


MakeWay = Callable[[Any, Any], Way]
"""Takes httpx or a library that is like it, and the transport that really sends."""


def _unchanged(body: bytes, model: Model) -> None:
    must("the body", body, model.body)
    must("authorization", f"Bearer {APP_KEY}", model.headers.get("authorization"))


def attributed(body: bytes, model: Model) -> None:
    """Raise `Broken` unless the call that arrived is the app's, with the customer and the customer's key in it."""
    arrived = json.loads(model.body)
    must("content-length", str(len(model.body)), model.headers.get("content-length"))
    must("customer_credentials", {"openrouter": {"api_key": CUSTOMERS_KEY}}, arrived.pop("customer_credentials", None))
    must("customer_params", {"customer_identifier": CUSTOMER}, arrived.pop("customer_params", None))
    must("the rest", json.loads(body), arrived)


def plain(library: Any, inner: Any) -> Way:
    """Without anything."""
    return Way(library.Client(transport=inner), _unchanged)


class _Forwarding:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def handle_request(self, request: Any) -> Any:
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def floor(library: Any, inner: Any) -> Way:
    """A transport that only forwards."""
    return Way(library.Client(transport=_Forwarding(inner)), _unchanged)


# This library


class Finished:
    """Takes finished calls and lets go of them; counts those that it is asked to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, call: object) -> None:
        """Take one."""
        self.count += 1


def _ours(library: Any, inner: Any, url: str, check: Check) -> Way:
    finished = Finished()
    transport = importlib.import_module(f"kwai_middleware.{library.__name__}_transport").KwaiTransport(
        inner, settings=the_apps_settings(), deliver=finished
    )

    def checked(body: bytes, model: Model) -> None:
        check(body, model)
        must("records", 1, finished.count)
        finished.count = 0

    return Way(library.Client(transport=transport), checked, url, bind_caller(somebody()))


def gateway(library: Any, inner: Any) -> Way:
    """Ours, through the gateway: the customer and the key go into the body."""
    return _ours(library, inner, GATEWAY, attributed)


def paid_by_the_customer(body: bytes, model: Model) -> None:
    """Raise `Broken` unless the app's call has arrived with the customer's key."""
    must("the body", body, model.body)
    must("authorization", f"Bearer {CUSTOMERS_KEY}", model.headers.get("authorization"))


def direct(library: Any, inner: Any) -> Way:
    """Ours, to OpenRouter: the key goes into a header."""
    return _ours(library, inner, DIRECT, paid_by_the_customer)


# What one would write


_customer: Final[contextvars.ContextVar[Mapping[str, str] | None]] = contextvars.ContextVar("customer", default=None)


@contextlib.contextmanager
def _for_the_customer() -> Any:
    token = _customer.set({"id": CUSTOMER, "key": CUSTOMERS_KEY})
    try:
        yield
    finally:
        _customer.reset(token)


class ParseAndDump:
    """A transport that reads a body, adds the customer of the context to it and writes it again; records nothing.

    Args:
        inner: The transport that really sends.
        request: The library's class of requests.
        loads: Reads JSON.
        dumps: Writes JSON.
    """

    def __init__(self, inner: Any, request: Any, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> None:
        self._inner = inner
        self._request = request
        self._loads = loads
        self._dumps = dumps

    def handle_request(self, request: Any) -> Any:
        """Send one request."""
        customer = _customer.get()
        if customer is None:
            return self._inner.handle_request(request)
        body = self._loads(request.read())
        body["customer_credentials"] = {"openrouter": {"api_key": customer["key"]}}
        body["customer_params"] = {"customer_identifier": customer["id"]}
        content = self._dumps(body)
        headers = request.headers.copy()
        headers["content-length"] = str(len(content))
        return self._inner.handle_request(
            self._request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)
        )

    def close(self) -> None:
        """Close the transport inside."""
        self._inner.close()


def json_dump(library: Any, inner: Any) -> Way:
    """The body is parsed and written again with the standard library."""
    transport = ParseAndDump(inner, library.Request, json.loads, lambda body: json.dumps(body).encode())
    return Way(library.Client(transport=transport), attributed, around=_for_the_customer())


def orjson_dump(library: Any, inner: Any) -> Way:
    """The same with the quickest library for it."""
    orjson = importlib.import_module("orjson")
    transport = ParseAndDump(inner, library.Request, orjson.loads, orjson.dumps)
    return Way(library.Client(transport=transport), attributed, around=_for_the_customer())


# What one would install


def abto(library: Any, inner: Any) -> Way:
    """Its hook, as its page says; the keys and the customer go into headers, which its own gateway reads."""
    its_library = importlib.import_module("abto")
    hooks = its_library.init_abto(
        api_key=APP_KEY,
        gateway_base_url=GATEWAY.removesuffix("/chat/completions"),
        provider_keys={"openai": CUSTOMERS_KEY},
        fallback=False,
    ).httpx_event_hooks()

    def check(body: bytes, model: Model) -> None:
        _unchanged(body, model)
        must("the key", CUSTOMERS_KEY, model.headers.get("x-abto-key-openai"))
        must("the customer", CUSTOMER, model.headers.get("x-abto-device-id"))

    around = its_library.with_context(device_id=CUSTOMER, feature_id="chat")
    return Way(library.Client(transport=inner, event_hooks=hooks), check, around=around)


def opentelemetry(library: Any, inner: Any) -> Way:
    """Its instrumentation of one client, with batches of spans that go to an exporter which only counts them."""
    trace = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    httpx_instrumentation = importlib.import_module("opentelemetry.instrumentation.httpx")
    exporter = _Counting(export.SpanExportResult.SUCCESS)
    provider = trace.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    instrumentor = getattr(httpx_instrumentation, f"{library.__name__.upper()}ClientInstrumentor")
    client = library.Client(transport=inner)
    instrumentor.instrument_client(client, tracer_provider=provider)

    def check(body: bytes, model: Model) -> None:
        _unchanged(body, model)
        must("traceparent", True, "traceparent" in model.headers)
        provider.force_flush()
        must("spans", 1, exporter.count)
        exporter.count = 0

    return Way(client, check)


class _Counting:
    """A span exporter that lets go of what it gets."""

    def __init__(self, success: object) -> None:
        self._success = success
        self.count = 0

    def export(self, spans: Any) -> object:
        self.count += len(spans)
        return self._success

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        del timeout_millis
        return True
