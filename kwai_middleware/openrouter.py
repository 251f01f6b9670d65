"""Users' OpenRouter keys: what "paste your key" and "Connect OpenRouter" pages need."""

from __future__ import annotations

from kwai_middleware._openrouter.asking import aask, as_secret, ask, given, question
from kwai_middleware._openrouter.authorization import (
    REFUSED_CODE,
    Authorization,
    ExchangedKey,
    authorization,
    exchanged_key,
    exchanging,
)
from kwai_middleware._openrouter.key_info import IMPOSSIBLE_KEY, KeyInfo, key_info
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.errors import InvalidCode, InvalidKey, OpenRouterUnavailable

__all__ = [
    "Authorization",
    "ExchangedKey",
    "InvalidCode",
    "InvalidKey",
    "KeyInfo",
    "OpenRouterUnavailable",
    "aexchange_code",
    "avalidate_key",
    "exchange_code",
    "start_authorization",
    "validate_key",
]


def validate_key(secret: Secret | str, *, settings: Settings | None = None, timeout: float = 10.0) -> KeyInfo:
    """Ask OpenRouter about a key, for a "paste your key" form. It costs nothing.

    A key that OpenRouter accepts need not pay for a call: look at `KeyInfo.objection` before you
    keep it.

    Args:
        secret: The key; blanks around a `str` are taken off.
        settings: The environment's when not given; asked is `settings.openrouter_base_url`.
        timeout: Seconds for all of it.

    Raises:
        InvalidKey: OpenRouter refuses the key, or it cannot be one.
        OpenRouterUnavailable: OpenRouter cannot be asked now; nothing is known of the key.
        BlockingCall: An event loop runs on this thread, and this would stop it; use `avalidate_key`.
        ConfigurationError: `timeout`, or a variable of the environment, has a value that is not allowed.
    """
    key = as_secret(secret)
    del secret  # may be a `str`, and error reporters show variables
    if key is None:
        raise InvalidKey(IMPOSSIBLE_KEY)
    asked = question("/key", settings=settings, timeout=timeout, key=key)
    return given(key_info(key, ask(asked, "validate_key")))


async def avalidate_key(
    secret: Secret | str,
    *,
    settings: Settings | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - the same signature as its twin's
) -> KeyInfo:
    """Do as `validate_key` does, while the event loop (asyncio or trio) goes on."""
    key = as_secret(secret)
    del secret  # as above
    if key is None:
        raise InvalidKey(IMPOSSIBLE_KEY)
    asked = question("/key", settings=settings, timeout=timeout, key=key)
    return given(key_info(key, await aask(asked)))


def start_authorization(
    callback_url: str, *, settings: Settings | None = None, auth_url: str | None = None
) -> Authorization:
    """Begin to connect a user's OpenRouter account: the user grants your app a key, and nobody types one.

    Nothing is sent. Keep the authorization with the user who began it, and send the browser to its
    `url`. OpenRouter sends it back to `callback_url` with `code` and our `state` in the query. When
    `authorization.is_answered_by(state)`, exchange the code; when it is not, refuse.

    Args:
        callback_url: A page of yours, `https` (loopback may be `http`). Its query may hold anything
            but `code` and `state`.
        settings: The environment's when not given.
        auth_url: OpenRouter's page, when it is not `/auth` at the host of `settings.openrouter_base_url`.

    Raises:
        ConfigurationError: A URL, or a variable of the environment, is not allowed.

    Example:
        >>> begun = start_authorization("https://app.example/openrouter/callback", settings=Settings())
        >>> begun.url.partition("?")[0]
        'https://openrouter.ai/auth'
    """
    settings = Settings.from_env() if settings is None else settings
    return authorization(callback_url, settings.openrouter_base_url, auth_url)


def exchange_code(
    code: Secret | str, code_verifier: Secret | str, *, settings: Settings | None = None, timeout: float = 10.0
) -> ExchangedKey:
    """Exchange the code that a callback brought for the user's key. A code is good once, for ten minutes.

    After `OpenRouterUnavailable` the same code may be tried again, but may have been used up.

    Args:
        code: From the query of the callback.
        code_verifier: Of the authorization that the same user began.
        settings: The environment's when not given; asked is `settings.openrouter_base_url`.
        timeout: Seconds for all of it.

    Raises:
        InvalidCode: OpenRouter gives no key for it, or it cannot be a code.
        OpenRouterUnavailable: OpenRouter cannot be asked now.
        BlockingCall: An event loop runs on this thread, and this would stop it; use `aexchange_code`.
        ConfigurationError: `timeout`, or a variable of the environment, has a value that is not allowed.
    """
    members = exchanging(code, code_verifier)
    del code, code_verifier  # may be `str`, and error reporters show variables
    if members is None:
        raise InvalidCode(REFUSED_CODE)
    asked = question("/auth/keys", settings=settings, timeout=timeout, members=members)
    return given(exchanged_key(ask(asked, "exchange_code")))


async def aexchange_code(
    code: Secret | str,
    code_verifier: Secret | str,
    *,
    settings: Settings | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - as above
) -> ExchangedKey:
    """Do as `exchange_code` does, while the event loop (asyncio or trio) goes on."""
    members = exchanging(code, code_verifier)
    del code, code_verifier  # as above
    if members is None:
        raise InvalidCode(REFUSED_CODE)
    asked = question("/auth/keys", settings=settings, timeout=timeout, members=members)
    return given(exchanged_key(await aask(asked)))
