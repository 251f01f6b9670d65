"""The outbound door for httpx2: openai 3 and later, anthropic 2 and later, your own `httpx2.Client`."""

from __future__ import annotations

try:
    import httpx2
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kwai_middleware.httpx2_transport needs httpx2: pip install 'kwai-middleware[httpx2]'", name=missing.name
    ) from missing

from kwai_middleware._outbound.clients import Clients, Kind
from kwai_middleware._outbound.library import Library, copier, entries_by, parsed_by
from kwai_middleware._outbound.sent_streams import SentStream
from kwai_middleware._outbound.streams import AsyncObservedStream, ObservedStream
from kwai_middleware._outbound.wire import WireBody, WireRequest
from kwai_middleware._outbound.wrapping import AsyncTransport, Transport
from kwai_middleware._submit import default_submit

__all__ = ["AsyncKwaiTransport", "KwaiTransport", "async_client", "client", "wrap"]


class _Request(WireRequest, httpx2.Request):
    pass


class _Body(WireBody, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class _SentStream(SentStream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class _Stream(ObservedStream, httpx2.SyncByteStream):
    pass


class _AsyncStream(AsyncObservedStream, httpx2.AsyncByteStream):
    pass


_LIBRARY = Library(
    name="httpx2",
    parsed=parsed_by(httpx2.URL),
    request=copier(httpx2.Request, _Request),
    headers=httpx2.Headers,
    entries=entries_by(httpx2.Headers),
    response=httpx2.Response,
    real_transports=(httpx2.HTTPTransport, httpx2.AsyncHTTPTransport),
    byte_stream=httpx2.ByteStream,
    wire_body=_Body,
    sent_stream=_SentStream,
    stream=_Stream,
    async_stream=_AsyncStream,
    timeout=httpx2.TimeoutException,
    deliver=default_submit,
)


class KwaiTransport(Transport[httpx2.Request, httpx2.Response], httpx2.BaseTransport):
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


class AsyncKwaiTransport(AsyncTransport[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    """The same as `KwaiTransport` for `httpx2.AsyncClient`."""

    library = _LIBRARY


_clients = Clients(
    name=_LIBRARY.name,
    sync=Kind(client=httpx2.Client, real=httpx2.HTTPTransport, base=httpx2.BaseTransport, wrapper=KwaiTransport),
    asynchronous=Kind(
        client=httpx2.AsyncClient,
        real=httpx2.AsyncHTTPTransport,
        base=httpx2.AsyncBaseTransport,
        wrapper=AsyncKwaiTransport,
    ),
    limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
    options={"Timeout": httpx2.Timeout, "Limits": httpx2.Limits, "Proxy": httpx2.Proxy},
    url=httpx2.URL,
    invalid_url=httpx2.InvalidURL,
)
client = _clients.client
async_client = _clients.async_client
wrap = _clients.wrap
