"""One fetch of an issuer's keys over HTTPS."""

from __future__ import annotations

import codecs
import contextlib
import ssl
import time
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

import httpx

from kwai_middleware._jwt.reading import strict_json
from kwai_middleware._route import is_loopback
from kwai_middleware.errors import ConfigurationError

__all__ = ["KeysNotFetched", "checked_url", "fetched_members", "prepared_tls"]

_LARGEST: Final = 1 << 20
_ERRORS: Final = (httpx.HTTPError, OSError, ValueError)


class KeysNotFetched(Exception):
    """The issuer's keys could not be had; the text says why in a few words."""


def checked_url(url: object) -> str:
    """Return a URL that keys may be fetched from.

    Raises:
        ConfigurationError: It is not one; the message does not hold it.
    """
    parts = None
    if isinstance(url, str):
        with contextlib.suppress(ValueError, httpx.InvalidURL):
            parts = urlsplit(url) if httpx.URL(url).host and urlsplit(url).port != 0 else None
    if not isinstance(url, str) or parts is None or parts.fragment or parts.username is not None:
        raise ConfigurationError("JWTIdentity.jwks_url: a URL such as https://issuer.example/.well-known/jwks.json")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ConfigurationError(
            "JWTIdentity.jwks_url: only https:// (or http:// to loopback): whoever can change the keys on their way"
            " is whoever he says he is"
        )
    return url


def prepared_tls() -> ssl.SSLContext:
    """Return what tells true issuers by, and import all that a fetch needs: its thread must import nothing."""
    tls = httpx.create_ssl_context()
    httpx.Client(verify=tls).close()
    codecs.lookup("idna")
    return tls


def fetched_members(url: str, timeout: float, tls: ssl.SSLContext) -> Sequence[object]:
    """Return the members of a JSON Web Key Set. A redirect is not followed.

    Raises:
        KeysNotFetched: The issuer cannot be reached, is too slow, or answers with something else.
    """
    until = time.monotonic() + timeout
    try:
        with (
            httpx.Client(verify=tls, timeout=timeout, follow_redirects=False) as client,
            client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KeysNotFetched(f"the answer was {answer.status_code}")
            body = bytearray()
            for piece in answer.iter_raw():
                body += piece
                if len(body) > _LARGEST:
                    raise KeysNotFetched("the answer was too large")
                if time.monotonic() > until:
                    raise KeysNotFetched("the answer took too long")
        members = strict_json(bytes(body)).get("keys")
    except _ERRORS as error:
        raise KeysNotFetched(type(error).__name__) from None
    if not isinstance(members, list):
        raise KeysNotFetched("the answer was no key set")
    return cast("list[object]", members)
