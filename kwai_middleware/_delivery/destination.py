"""Where a record is to go: each one in a shared spool says it, and nobody else may send it."""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from kwai_middleware._secret import Secret

__all__ = ["Destination", "destination_of"]


class Destination(msgspec.Struct, frozen=True):
    """A vendor's API and an account there.

    Attributes:
        base_url: Of the API.
        digest: Stands for the API key: equal for equal keys, and of no use without the key.
    """

    base_url: str
    digest: str


def destination_of(base_url: str, api_key: Secret) -> Destination:
    """Return the destination of an app with these settings."""
    digest = hmac.new(api_key.reveal().encode(), f"kwai-middleware {base_url}".encode(), hashlib.sha256)
    return Destination(base_url, digest.hexdigest()[:32])
