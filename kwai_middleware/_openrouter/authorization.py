"""OpenRouter's OAuth flow with PKCE: the page that a user is sent to, and the key that comes of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from kwai_middleware._openrouter.asking import Answer, as_secret, without
from kwai_middleware._route import checked_base_url
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError, InvalidCode, KwaiError, OpenRouterUnavailable

__all__ = ["REFUSED_CODE", "Authorization", "ExchangedKey", "authorization", "exchanged_key", "exchanging"]

REFUSED_CODE: Final = (
    "OpenRouter gives no key for this code: it has been used, is older than ten minutes, or belongs to another"
    " authorization; send the user to OpenRouter once more"
)
_NO_KEY: Final = "OpenRouter answered without a key; send the user to OpenRouter once more"
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_REFUSED: Final = (400, 401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """A user on the way to OpenRouter. Keep it on the server, with the user who began it, for ten minutes.

    Attributes:
        url: Where to send the user's browser.
        state: What the callback must bring back in its query; see `is_answered_by`.
        code_verifier: Proves to OpenRouter that who exchanges the code also began the flow.
    """

    url: str = field(repr=False)
    state: str = field(repr=False)
    code_verifier: Secret

    def is_answered_by(self, state: str | None) -> bool:
        """Say whether a callback with this `state` belongs to this authorization.

        It must be the one that the same user began: or somebody could have a user's key end up in
        an account of their own, or have a user work, unknowingly, with a key of theirs.
        """
        return state is not None and hmac.compare_digest(state.encode("utf-8", "replace"), self.state.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangedKey:
    """A key that a user has granted the app.

    Attributes:
        key: It belongs to the user, who pays for its calls and can take it back at any time.
        user_id: Of the user, at OpenRouter; None when it does not say.
    """

    key: Secret
    user_id: str | None


class _Granted(msgspec.Struct):
    key: str
    user_id: str | None = None


def authorization(callback_url: str, base_url: str, auth_url: str | None) -> Authorization:
    """Return a new authorization.

    Raises:
        ConfigurationError: One of the URLs is not allowed.
    """
    if auth_url is None:
        parts = urlsplit(base_url)
        auth_url = f"{parts.scheme}://{parts.netloc}/auth"
    else:
        auth_url = checked_base_url("auth_url", auth_url)
    state = secrets.token_urlsafe(32)
    code_verifier = Secret(secrets.token_urlsafe(64))
    query = urlencode(
        {
            "callback_url": _with_state(callback_url, state),
            "code_challenge": _challenge(code_verifier),
            "code_challenge_method": "S256",
        }
    )
    return Authorization(url=f"{auth_url}?{query}", state=state, code_verifier=code_verifier)


def exchanging(code: object, code_verifier: object) -> dict[str, Secret | str] | None:
    """Return what is posted to exchange a code; None when it cannot be one, or the verifier none of ours."""
    secret_code, verifier = as_secret(code), as_secret(code_verifier)
    if secret_code is None or verifier is None or not _VERIFIER.fullmatch(verifier.reveal()):
        return None
    return {"code": secret_code, "code_verifier": verifier, "code_challenge_method": "S256"}


def exchanged_key(answer: Answer | KwaiError) -> ExchangedKey | KwaiError:
    """Return the key in the answer to `POST /auth/keys`, or the error that it means."""
    if isinstance(answer, KwaiError):
        return answer
    if answer.status in _REFUSED:
        return InvalidCode(REFUSED_CODE)
    granted = answer.read(_Granted)
    if isinstance(granted, KwaiError):
        return granted
    key = as_secret(granted.key)
    if key is None:
        return OpenRouterUnavailable(_NO_KEY)
    return ExchangedKey(key=key, user_id=without(granted.user_id or "", key) or None)


def _challenge(code_verifier: Secret) -> str:
    digest = hashlib.sha256(code_verifier.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _with_state(callback_url: str, state: str) -> str:
    """OpenRouter has no `state` of its own: it adds its code to the query of the URL that it is given."""
    address, _, query = callback_url.partition("?") if isinstance(callback_url, str) else ("", "", "")
    try:
        checked_base_url("callback_url", address)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; behind a proxy that ends TLS, a server builds http:// URLs unless it is told about the proxy"
        ) from None
    if "#" in query or not query.isascii() or not query.isprintable() or " " in query:
        raise ConfigurationError("callback_url: no fragment, and everything in the query percent-encoded")
    if {"code", "state"} & {name for name, _ in parse_qsl(query, keep_blank_values=True)}:
        raise ConfigurationError("callback_url: `code` and `state` in its query are for the answer")
    return f"{address}?{query}{'&' if query else ''}state={state}"
