"""Everything this library raises on purpose.

    KwaiError                          every error of ours
    ├─ ConfigurationError (ValueError) a setting is wrong; raised at start, never during a request
    ├─ RequestRefused                  an inbound request is answered by the middleware itself
    │  ├─ InvalidHeader                400: a header of ours is malformed
    │  ├─ Unauthenticated              401: an identity or a key is required and missing, or does not hold
    │  └─ IdentityUnavailable          503: who vouches for the identity cannot be asked now
    ├─ OutboundRefused                 a model call is refused before a byte is sent
    │  ├─ MissingCredential            only the caller's own key may pay, and there is none
    │  ├─ KeysUnavailable              the caller's keys could not be looked up
    │  ├─ CallerExpired                what the caller was identified by is no longer valid
    │  └─ CannotAttribute              the request cannot carry whose call it is
    ├─ InvalidReference (ValueError)   a caller's reference is forged, damaged or too old
    ├─ InvalidKey (ValueError)         OpenRouter refuses a key, or it cannot be one
    ├─ InvalidCode (ValueError)        OpenRouter gives no key for a code
    ├─ OpenRouterUnavailable           OpenRouter cannot be asked now, or its answer makes no sense
    └─ BlockingCall (RuntimeError)     a blocking method was called on an event loop

No message ever holds the value that was refused: it may be a key.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BlockingCall",
    "CallerExpired",
    "CannotAttribute",
    "ConfigurationError",
    "IdentityUnavailable",
    "InvalidCode",
    "InvalidHeader",
    "InvalidKey",
    "InvalidReference",
    "KeysUnavailable",
    "KwaiError",
    "MissingCredential",
    "OpenRouterUnavailable",
    "OutboundRefused",
    "RequestRefused",
    "Unauthenticated",
]


class KwaiError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigurationError(KwaiError, ValueError):
    """A setting, an argument or an environment variable is wrong.

    The message names the field or variable, says what is allowed and what to do.
    """


class RequestRefused(KwaiError):
    """An inbound request that the middleware answers itself, before the app runs.

    An `identify` or `credentials` callable may raise it (or a subclass) to refuse the request.

    Args:
        detail: One sentence for the client's developer. It is sent as it is: no values, no secrets.
        header: The name of the header at fault, when there is one.
    """

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Request refused"

    def __init__(self, detail: str, *, header: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.header = header


class InvalidHeader(RequestRefused):
    """A header that carries an identity or a key is malformed, too long or sent twice (HTTP 400)."""

    status = 400
    title = "Invalid header"


class Unauthenticated(RequestRefused):
    """An identity or a key is required and missing, or the one that was sent does not hold (HTTP 401)."""

    status = 401
    title = "Authentication required"


class IdentityUnavailable(RequestRefused):
    """Whoever vouches for the request's identity cannot be asked now, so nobody can say whose it is (HTTP 503)."""

    status = 503
    title = "Identity unavailable"


class OutboundRefused(KwaiError):
    """A model call is refused on this machine; nothing of it was sent.

    Attributes:
        code: Short stable name of the reason, also sent in the `x-kwai-refused` header of the
            local answer that `client()` and `async_client()` give instead of raising.
        status: HTTP status of that answer.
    """

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 401


class MissingCredential(OutboundRefused):
    """Only the caller's own key may pay for this call (`byok="only"`), and the caller has none."""

    code = "missing_credential"


class KeysUnavailable(OutboundRefused):
    """The caller's keys could not be looked up, and no other key may take their place."""

    code = "keys_unavailable"
    status = 503


class CallerExpired(OutboundRefused):
    """What the caller was identified by is no longer valid, as in a websocket that outlives its token."""

    code = "caller_expired"


class CannotAttribute(OutboundRefused):
    """The request cannot carry the caller's key or identity, so it would go out on another's bill."""

    code = "cannot_attribute"


class InvalidReference(KwaiError, ValueError):
    """A caller's reference is forged, damaged or too old. The message does not hold it."""


class InvalidKey(KwaiError, ValueError):
    """OpenRouter refuses a key, or it cannot be one. The message says what to do, to whoever brought the key."""


class InvalidCode(KwaiError, ValueError):
    """OpenRouter gives no key for a code: it is used, too old, or belongs to another authorization. Start again."""


class OpenRouterUnavailable(KwaiError):
    """OpenRouter cannot be asked now, or its answer makes no sense: nothing is known of the key.

    Args:
        detail: What happened, and what to do.
        retry_after: Seconds that OpenRouter asks to wait; None when it asks for nothing.
    """

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class BlockingCall(KwaiError, RuntimeError):
    """A blocking method was called where an event loop runs; the message names the async twin."""
