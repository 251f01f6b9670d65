"""The outbound door for httpx: openai before 3, the OpenRouter SDK, LiteLLM, your own `httpx.Client`."""

from __future__ import annotations

import httpx

from kwai_middleware._outbound.clients import Clients, Kind
from kwai_middleware._outbound.library import Library, copier, entries_by, parsed_by
from kwai_middleware._outbound.sent_streams import SentStream
from kwai_middleware._outbound.streams import AsyncObservedStream, ObservedStream
from kwai_middleware._outbound.wire import WireBody, WireRequest
from kwai_middleware._outbound.wrapping import AsyncTransport, Transport
from kwai_middleware._submit import default_submit

__all__ = ["AsyncKwaiTransport", "KwaiTransport", "async_client", "client", "wrap"]


class _Request(WireRequest, httpx.Request):
    pass


class _Body(WireBody, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class _SentStream(SentStream, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class _Stream(ObservedStream, httpx.SyncByteStream):
    pass


class _AsyncStream(AsyncObservedStream, httpx.AsyncByteStream):
    pass


_LIBRARY = Library(
    name="httpx",
    parsed=parsed_by(httpx.URL),
    request=copier(httpx.Request, _Request),
    headers=httpx.Headers,
    entries=entries_by(httpx.Headers),
    response=httpx.Response,
    real_transports=(httpx.HTTPTransport, httpx.AsyncHTTPTransport),
    byte_stream=httpx.ByteStream,
    wire_body=_Body,
    sent_stream=_SentStream,
    stream=_Stream,
    async_stream=_AsyncStream,
    timeout=httpx.TimeoutException,
    deliver=default_submit,
)


class KwaiTransport(Transport[httpx.Request, httpx.Response], httpx.BaseTransport):
    """Bills and attributes model calls to the current caller, and records them.

    Args:
        inner: The transport that really sends.
        settings: The environment's when not given.
        deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
        refuse: Whether a call that must not go out raises (`raise`) or is answered locally with
            status 401 (`response`).

    Raises:
        ConfigurationError: `inner` is no synchronous transport, or is wrapped already.
    """

    library = _LIBRARY


class AsyncKwaiTransport(AsyncTransport[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """The same as `KwaiTransport` for `httpx.AsyncClient`."""

    library = _LIBRARY


_clients = Clients(
    name=_LIBRARY.name,
    sync=Kind(client=httpx.Client, real=httpx.HTTPTransport, base=httpx.BaseTransport, wrapper=KwaiTransport),
    asynchronous=Kind(
        client=httpx.AsyncClient,
        real=httpx.AsyncHTTPTransport,
        base=httpx.AsyncBaseTransport,
        wrapper=AsyncKwaiTransport,
    ),
    limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
    options={"Timeout": httpx.Timeout, "Limits": httpx.Limits, "Proxy": httpx.Proxy},
    url=httpx.URL,
    invalid_url=httpx.InvalidURL,
)
client = _clients.client
async_client = _clients.async_client
wrap = _clients.wrap
