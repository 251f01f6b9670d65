"""The one request that all variants serve, as a server hands it to an app."""

from __future__ import annotations

import io
from typing import Any, Final
from wsgiref.util import FileWrapper

__all__ = [
    "CUSTOMER",
    "EVERYTHING",
    "KEY",
    "PATH",
    "PROXY",
    "REQUEST_ID",
    "VISITOR",
    "Headers",
    "environ",
    "headers",
    "scope",
]

CUSTOMER: Final = "acme-4711"
KEY: Final = "sk-or-v1-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
REQUEST_ID: Final = "4b1f6a1e0c8b4d5e9f3a7c2d1e0b6a58"
VISITOR: Final = "0192f0c1-7a3b-7c11-9d55-1b2c3d4e5f60"
PROXY: Final = "10.0.0.7"
PATH: Final = "/ask"

EVERYTHING: Final = "identity and key"
"""All of our headers."""

Headers = tuple[tuple[str, str], ...]

# Each middleware finds its own header among them, so that none has to make up for what is not there.
_ANYONES: Final[Headers] = (
    ("host", "app.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("accept", "*/*"),
    ("accept-language", "en-GB,en;q=0.7"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "keep-alive"),
    ("x-request-id", REQUEST_ID),
    ("x-posthog-distinct-id", VISITOR),
)
_OURS: Final[dict[str, Headers]] = {
    "nothing": (),
    "identity": (("x-customer-id", CUSTOMER),),
    EVERYTHING: (("x-customer-id", CUSTOMER), ("x-openrouter-key", KEY)),
}


def headers(sent: str) -> Headers:
    """Return the request's headers.

    Args:
        sent: Which of ours are among them: `nothing`, `identity`, `identity and key`.
    """
    return (*_ANYONES, *_OURS[sent])


def scope(sent: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return what uvicorn makes of the request: new for each, as are its headers, which middleware may change.

    Args:
        sent: The headers.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("10.0.0.2", 8000),
        "client": (PROXY, 51234),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": list(sent),
        "state": {},
    }


def environ(sent: Headers) -> dict[str, Any]:
    """Return what gunicorn makes of the request; each request gets a copy.

    Args:
        sent: The headers.
    """
    return {
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": PATH,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": PROXY,
        "REMOTE_PORT": "51234",
        "SERVER_NAME": "10.0.0.2",
        "SERVER_PORT": "8000",
        "PATH_INFO": PATH,
        "SCRIPT_NAME": "",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent},
    }
