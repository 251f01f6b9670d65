"""Settings: from arguments, or from the environment when asked to read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast, get_args

from kwai_middleware._app_keys import checked_credentials, credentials_from
from kwai_middleware._caller import Byok, Capture, Credential
from kwai_middleware._redaction.mask_function import MaskFunction, checked_mask, imported_mask
from kwai_middleware._route import Route, RouteKind, checked_base_url
from kwai_middleware._secret import Secret
from kwai_middleware._spool_place import AUTO, checked_place
from kwai_middleware.errors import ConfigurationError

__all__ = ["BodyCredentials", "GatewayKeyLists", "Media", "OnConflict", "Settings"]

OnConflict = Literal["context", "body", "error"]
"""Who wins when a request body brings an identity or key of its own."""

BodyCredentials = Literal["remove", "allow"]
"""What happens to a key in a request body when the caller has none."""

GatewayKeyLists = Literal["off", "top-level", "by-provider"]
"""In which form several keys of one provider go to the gateway; `off`: one of them goes."""

Media = Literal["digest", "keep"]
"""What stands in a record for a picture, a sound or a file that a message holds in base64."""

KEYWORDSAI_BASE_URL: Final = "https://api.keywordsai.co/api"
RESPAN_BASE_URL: Final = "https://api.respan.ai/api"
OPENROUTER_BASE_URL: Final = "https://openrouter.ai/api/v1"

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_DAY: Final = 24 * 60 * 60.0


def _env(default: Any, *variables: str, shown: bool = True) -> Any:
    """A field with its environment variables; the first one that is set counts."""
    return field(default=default, repr=shown, metadata={"variables": variables})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked at construction. Frozen; equal settings share one delivery.

    Times are seconds, sizes bytes. Each field has an environment variable, named in brackets.

    Args:
        api_key: The app's Keywords AI (Respan) key, for the request-logs API
            [KEYWORDSAI_API_KEY, else RESPAN_API_KEY]. Without it calls are attributed but not logged.
        base_url: The vendor's API: where records go, and a gateway route
            [KEYWORDSAI_BASE_URL, else RESPAN_BASE_URL].
        openrouter_base_url: A direct route beside OpenRouter's own [OPENROUTER_BASE_URL].
        routes: Further destinations [KWAI_ROUTES:
            `gateway=https://... relay=https://... direct=https://...`].
        credentials: The app's own keys of providers, for calls that no key of the caller's pays: at the
            provider's own API or the relay one takes the place of what the client sends, at the gateway
            they go along where the caller has none at all. Of several of one provider each is chosen by
            its weight [KWAI_CREDENTIALS: `openrouter=sk-or-1;w=3 openrouter=sk-or-2`].
        gateway_key_lists: How several keys of one provider go to the gateway: `off` one of them, chosen
            here; or all with their weights, in a form that the vendor shows: `top-level` in its
            guides, `by-provider` in the types of its SDK [KWAI_GATEWAY_KEY_LISTS].
        byok: Whose key pays: `prefer` the caller's, else the app's own; `only` the caller's, and no
            call without one; `off` the app's own, attribution only [KWAI_BYOK].
        on_conflict: Who wins when a request brings a key or an identity of its own, in whichever of
            the vendor's members and headers: the bound `context`, the `body` (the request as a
            whole), or `error` [KWAI_ON_CONFLICT].
        body_credentials: Whether a key that a request brings is let through when the caller has
            none: `remove` or `allow` [KWAI_BODY_CREDENTIALS].
        capture: What is recorded: `full`, `metadata` (no prompt, no answer, no words of an error) or
            `none` [KWAI_CAPTURE].
        mask: A function that takes each text of content that would be recorded, and returns what may
            be: prompts, answers, arguments of tools, parameters, messages of errors and the values
            of `Caller.metadata`; no names, numbers or ids. It runs on the recording thread, so it
            delays records and no call; should it call a model itself, that call is not recorded.
            When it fails, that record has metadata only [KWAI_MASK: `package.module:function`].
        media: What a record holds of base64 media in messages: `digest` (its type, size and SHA-256)
            or `keep` (all of it) [KWAI_MEDIA].
        spool: Where records wait: `sqlite:///path` (an absolute path; one that ends in a slash is a
            folder, and each destination has a file of its own in there), `memory:`, or `auto`: a
            file in the user's state directory, memory where none can be written or the disk is one
            of the network [KWAI_SPOOL].
        max_call_bytes: Kept of one answer; beyond it only its last 64 KiB [KWAI_MAX_CALL_BYTES].
        max_open_bytes: Kept of all answers and requests not yet recorded, in this process; beyond
            it only the tails of answers [KWAI_MAX_OPEN_BYTES].
        max_waiting_calls: Calls that may wait for the recording thread [KWAI_MAX_WAITING_CALLS].
        max_spool_bytes: The spool's file with everything in it, and no more than that in memory
            [KWAI_MAX_SPOOL_BYTES].
        max_memory_bytes: Records that may wait in memory, where there is no disk or while it fails
            [KWAI_MAX_MEMORY_BYTES].
        max_pending_age: After which a record that the vendor never took is given up
            [KWAI_MAX_PENDING_AGE].
        bulk_per_minute: Requests with many records each, under load; the vendor allows an
            organisation 30, so several hosts share them. 0 sends each record alone
            [KWAI_BULK_PER_MINUTE].
        serverless: Deliver at the end of each HTTP request, since the process may be frozen right
            after it: `True`, `False`, or None to look whether AWS Lambda runs this
            [KWAI_SERVERLESS: `true` or `false`].
        request_timeout: For one request to the logs API [KWAI_REQUEST_TIMEOUT].
        exit_timeout: For delivering what is left when the process ends, when an ASGI server shuts
            the app down, or when a serverless request ends [KWAI_EXIT_TIMEOUT].

    Raises:
        ConfigurationError: A value is not allowed; the message names the field, or the environment
            variable it came from, and what is.
    """

    api_key: Secret | None = _env(None, "KEYWORDSAI_API_KEY", "RESPAN_API_KEY")
    base_url: str = _env(KEYWORDSAI_BASE_URL, "KEYWORDSAI_BASE_URL", "RESPAN_BASE_URL")
    openrouter_base_url: str = _env(OPENROUTER_BASE_URL, "OPENROUTER_BASE_URL")
    routes: tuple[Route, ...] = _env((), "KWAI_ROUTES")
    credentials: tuple[Credential, ...] = _env((), "KWAI_CREDENTIALS")
    gateway_key_lists: GatewayKeyLists = _env("off", "KWAI_GATEWAY_KEY_LISTS")
    byok: Byok = _env("prefer", "KWAI_BYOK")
    on_conflict: OnConflict = _env("context", "KWAI_ON_CONFLICT")
    body_credentials: BodyCredentials = _env("remove", "KWAI_BODY_CREDENTIALS")
    capture: Capture = _env("full", "KWAI_CAPTURE")
    mask: MaskFunction | None = _env(None, "KWAI_MASK", shown=False)
    media: Media = _env("digest", "KWAI_MEDIA")
    spool: str = _env(AUTO, "KWAI_SPOOL")
    max_call_bytes: int = _env(8 * _MIB, "KWAI_MAX_CALL_BYTES")
    max_open_bytes: int = _env(256 * _MIB, "KWAI_MAX_OPEN_BYTES")
    max_waiting_calls: int = _env(10_000, "KWAI_MAX_WAITING_CALLS")
    max_spool_bytes: int = _env(1024 * _MIB, "KWAI_MAX_SPOOL_BYTES")
    max_memory_bytes: int = _env(32 * _MIB, "KWAI_MAX_MEMORY_BYTES")
    max_pending_age: float = _env(7 * _DAY, "KWAI_MAX_PENDING_AGE")
    bulk_per_minute: int = _env(30, "KWAI_BULK_PER_MINUTE")
    serverless: bool | None = _env(None, "KWAI_SERVERLESS")
    request_timeout: float = _env(10.0, "KWAI_REQUEST_TIMEOUT")
    exit_timeout: float = _env(3.0, "KWAI_EXIT_TIMEOUT")

    def __post_init__(self) -> None:
        _check(self, lambda name: f"Settings.{name}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables; what is unset or empty has its default.

        With only `RESPAN_API_KEY` set, `base_url` defaults to the host of that name.

        Args:
            environ: Instead of `os.environ`.

        Raises:
            ConfigurationError: A variable has a value that is not allowed; the message names it.
        """
        outcome = _read(os.environ if environ is None else environ)
        del environ
        if isinstance(outcome, str):
            # Raised here, where no variable holds what was read: error reporters show them, and it may be a key.
            raise ConfigurationError(outcome)
        return outcome


def _read(environ: Mapping[str, str]) -> Settings | str:
    """Return the settings, or what is wrong with a variable."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    try:
        for setting in fields(Settings):
            for variable in setting.metadata["variables"]:
                text = environ.get(variable, "").strip()
                if text:
                    values[setting.name] = _parse(setting.name, variable, text)
                    sources[setting.name] = variable
                    break
    except ConfigurationError as error:
        return str(error)
    if sources.get("api_key") == "RESPAN_API_KEY":
        values.setdefault("base_url", RESPAN_BASE_URL)
    try:
        return Settings(**values)
    except ConfigurationError as error:
        # Only what a variable has brought can be wrong; the defaults are not.
        name, _, reason = str(error).removeprefix("Settings.").partition(":")
        return f"{sources[name]}:{reason}"


def _check(settings: Any, label: Callable[[str], str]) -> None:
    if isinstance(settings.api_key, str):
        object.__setattr__(settings, "api_key", _secret(label("api_key"), settings.api_key))
    elif settings.api_key is not None and not isinstance(settings.api_key, Secret):
        raise ConfigurationError(f"{label('api_key')}: expected a Secret, a str or None")
    for name in ("base_url", "openrouter_base_url"):
        object.__setattr__(settings, name, checked_base_url(label(name), getattr(settings, name)))
    is_sequence = isinstance(settings.routes, list | tuple)
    routes: tuple[Any, ...] = tuple(settings.routes) if is_sequence else (None,)
    if not all(isinstance(route, Route) for route in routes):
        raise ConfigurationError(f"{label('routes')}: expected a tuple of kwai_middleware.Route objects")
    object.__setattr__(settings, "routes", routes)
    object.__setattr__(settings, "credentials", checked_credentials(label("credentials"), settings.credentials))
    for name, kind in (
        ("gateway_key_lists", GatewayKeyLists),
        ("byok", Byok),
        ("on_conflict", OnConflict),
        ("body_credentials", BodyCredentials),
        ("capture", Capture),
        ("media", Media),
    ):
        allowed = get_args(kind)
        if getattr(settings, name) not in allowed:
            raise ConfigurationError(f"{label(name)}: one of {', '.join(allowed)}")
    checked_mask(label("mask"), settings.mask)
    object.__setattr__(settings, "spool", checked_place(label("spool"), settings.spool))
    if settings.serverless is not None and not isinstance(settings.serverless, bool):
        raise ConfigurationError(f"{label('serverless')}: True, False or None")
    for name, low, high in _SIZES:
        value = getattr(settings, name)
        if type(value) is not int or not low <= value <= high:
            raise ConfigurationError(f"{label(name)}: a whole number from {low} to {high}")
    for name, shortest, longest in _TIMES:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not shortest <= value <= longest:
            raise ConfigurationError(f"{label(name)}: seconds, from {shortest:g} to {longest:g}")


_SIZES: Final = (
    ("max_call_bytes", 256 * _KIB, 1024 * _MIB),
    ("max_open_bytes", _MIB, 1024 * 1024 * _MIB),
    ("max_waiting_calls", 1, 10_000_000),
    ("max_spool_bytes", 4 * _MIB, 1024 * 1024 * _MIB),
    ("max_memory_bytes", 64 * _KIB, 1024 * 1024 * _MIB),
    ("bulk_per_minute", 0, 60_000),
)
_TIMES: Final = (
    ("max_pending_age", 1.0, 365 * _DAY),
    ("request_timeout", 0.1, 600.0),
    ("exit_timeout", 0.0, 60.0),
)


def _secret(label: str, text: str) -> Secret:
    try:
        return Secret(text)
    except ValueError:
        raise ConfigurationError(
            f"{label}: an API key is visible ASCII without blanks (was it copied with a line end or quotes?)"
        ) from None


def _parse(name: str, variable: str, text: str) -> Any:
    if name == "api_key":
        return _secret(variable, text)
    if name == "credentials":
        return credentials_from(variable, text)
    if name == "mask":
        return imported_mask(variable, text)
    if name == "routes":
        return tuple(_route(variable, word) for word in text.replace(",", " ").split())
    if name in {name for name, _, _ in _SIZES}:
        if not text.isdecimal() or not text.isascii() or len(text) > 15:
            raise ConfigurationError(f"{variable}: a whole number")
        return int(text)
    if name in {name for name, _, _ in _TIMES}:
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(f"{variable}: a number of seconds") from None
    if name == "serverless":
        if text.lower() not in ("true", "false"):
            raise ConfigurationError(f"{variable}: true or false")
        return text.lower() == "true"
    return text


def _route(variable: str, word: str) -> Route:
    kind, equals, url = word.partition("=")
    if not equals or kind not in get_args(RouteKind):
        raise ConfigurationError(f"{variable}: words of the form gateway=https://..., relay=... or direct=...")
    checked_base_url(variable, url)
    return Route(url, kind=cast("RouteKind", kind))
