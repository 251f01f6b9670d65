"""Middleware for multi-tenant backends whose users bring their own LLM keys.

Inbound, `ASGIMiddleware` or `WSGIMiddleware` binds the caller of a request. Outbound, a client from
`kwai_middleware.httpx_transport` or `kwai_middleware.httpx2_transport` bills each model call to that
caller's key and attributes it to that customer. What was not logged by the gateway is delivered to
the request-logs API in the background.
"""

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._carrying import carry_caller
from kwai_middleware._context import bind_caller, current_caller, explain
from kwai_middleware._delivery.delivery import Delivery, default_delivery
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._inbound.first_of import first_of
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._outbound.key_rest import KeyState, key_state
from kwai_middleware._record import CompletedCall
from kwai_middleware._reference import bind_reference
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import (
    BlockingCall,
    CallerExpired,
    CannotAttribute,
    ConfigurationError,
    IdentityUnavailable,
    InvalidHeader,
    InvalidReference,
    KeysUnavailable,
    KwaiError,
    MissingCredential,
    OutboundRefused,
    RequestRefused,
    Unauthenticated,
)
from kwai_middleware.identity import HeaderIdentity
from kwai_middleware.key_resolver import KeyResolver
from kwai_middleware.signed_identity import SignedIdentity
from kwai_middleware.user_identity import UserIdentity
from kwai_middleware.wsgi import WSGIMiddleware

__all__ = [
    "ASGIMiddleware",
    "BlockingCall",
    "Caller",
    "CallerExpired",
    "CannotAttribute",
    "CompletedCall",
    "ConfigurationError",
    "Credential",
    "Delivery",
    "HeaderCredentials",
    "HeaderIdentity",
    "IdentityUnavailable",
    "InboundRequest",
    "InvalidHeader",
    "InvalidReference",
    "KeyResolver",
    "KeyState",
    "KeysUnavailable",
    "KwaiError",
    "MissingCredential",
    "OutboundRefused",
    "RequestRefused",
    "Route",
    "Secret",
    "Settings",
    "SignedIdentity",
    "Stats",
    "Unauthenticated",
    "UserIdentity",
    "WSGIMiddleware",
    "bind_caller",
    "bind_reference",
    "carry_caller",
    "current_caller",
    "default_delivery",
    "explain",
    "first_of",
    "key_state",
]
