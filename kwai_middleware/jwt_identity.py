"""Who a request is for, read from a signed token."""

from __future__ import annotations

try:
    import cryptography as _cryptography
    import jwt as _jwt
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kwai_middleware.jwt_identity needs pyjwt and cryptography: pip install 'kwai-middleware[jwt]'",
        name=missing.name,
    ) from missing

import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, final

from kwai_middleware._caller import Caller
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.values import checked_name, has_comma
from kwai_middleware._jwt.claims import ClaimRules, Verified
from kwai_middleware._jwt.fetching import checked_url
from kwai_middleware._jwt.given_key import given_key, public_algorithms
from kwai_middleware._jwt.key_source import FetchedKeys, Flight, GivenKeys, KeySource
from kwai_middleware._jwt.keys import KeySet
from kwai_middleware._jwt.verifying import Verifier
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError, IdentityUnavailable, InvalidHeader, Unauthenticated

__all__ = ["JWTIdentity"]

del _cryptography, _jwt

_MAX_TOKEN: Final = 16 * 1024
_FIELDS: Final = ("identifier", "name", "email", "group", "thread")
_DEFAULT_CLAIMS: Final[Mapping[str, str]] = MappingProxyType({"identifier": "sub", "name": "name", "email": "email"})


@final
class JWTIdentity:
    """Reads the caller from a JSON Web Token that proves itself: by its signature, its issuer, its audience, its time.

    A request without a token is nobody's. One whose token does not hold is answered with 401, which
    says in kind what is wrong; while the issuer's keys cannot be had at all, with 503.

    The keys are fetched when the first token comes, on a thread of their own and once for all who wait
    for them; an event loop goes on meanwhile. Where they are at hand, as nearly always, nothing waits.

    Args:
        jwks_url: Where the issuer publishes its keys (`jwks_uri` in its OpenID configuration).
        key: Instead of that the one key: a public key or certificate in PEM, or a shared secret of 32
            bytes or more, for which `algorithms` must be named.
        issuer: Who must have issued the token (its claim `iss`, to the letter): one or several. None
            believes whoever has the key.
        audience: For whom the token must be meant (its claim `aud`): one, or several of which one is
            enough. None believes tokens that were issued for other services, too.
        algorithms: What the token may be signed with. None stands for all that suit public keys: RS*,
            PS*, ES256, ES384, ES512 and EdDSA.
        claims: Which claim has which field of the `Caller`: `identifier` (needed), `name`, `email`,
            `group`, `thread`. A tuple is a path into objects within objects.
        header: Where the token is. In `authorization` it has the form `Bearer <token>`, and anything else is
            not ours; in another header it may stand alone.
        strip: Whether the header is taken out of the request, in place, so that no log and no error
            report shows it from then on. The app cannot read it then either.
        leeway: By how many seconds the issuer's clock may differ from ours.
        timeout: How many seconds a fetch of the keys may take, and a request waits for it.
        refresh_after: Age in seconds from which on the keys are fetched anew in the background.
        retry_after: Least time in seconds between two fetches, however many requests name unknown keys.
        stale_for: Age in seconds up to which keys are used while the issuer is down.
        max_tokens: How many verified tokens are remembered, by their digests, until they expire.
        clock: Tells the seconds since 1970.

    Raises:
        ConfigurationError: An argument is none of these, or lets tokens be forged.

    Example:
        >>> JWTIdentity(jwks_url="https://login.example/jwks.json", issuer="https://login.example/", audience="api")
        JWTIdentity(jwks_url='https://login.example/jwks.json', issuer='https://login.example/', audience='api')
    """

    __slots__ = ("_header", "_keys", "_shown", "_strip", "_verifier", "audience", "header_names", "issuer")

    origin: Final = "jwt"

    def __init__(
        self,
        *,
        jwks_url: str | None = None,
        key: str | bytes | Secret | None = None,
        issuer: str | Sequence[str] | None,
        audience: str | Sequence[str] | None,
        algorithms: Collection[str] | None = None,
        claims: Mapping[str, str | tuple[str, ...]] = _DEFAULT_CLAIMS,
        header: str = "authorization",
        strip: bool = False,
        leeway: float = 10.0,
        timeout: float = 5.0,
        refresh_after: float = 600.0,
        retry_after: float = 10.0,
        stale_for: float = 86400.0,
        max_tokens: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (jwks_url is None) == (key is None):
            raise ConfigurationError("JWTIdentity: either jwks_url or key, where the keys are or the one key")
        rules = ClaimRules(
            issuers=_checked_names("issuer", issuer),
            audiences=_checked_names("audience", audience),
            leeway=_checked_number("leeway", leeway, least=0.0),
            paths=_checked_paths(claims),
        )
        bounds = {
            "timeout": timeout,
            "refresh_after": refresh_after,
            "retry_after": retry_after,
            "stale_for": stale_for,
        }
        self.issuer: Final = issuer
        self.audience: Final = audience
        self._header: Final = checked_name("JWTIdentity.header", header)
        self.header_names: Final = frozenset((self._header,))
        self._strip: Final = strip
        accepted: frozenset[str]
        source: KeySource
        if jwks_url is not None:
            accepted = public_algorithms(algorithms)
            checked = {argument: _checked_number(argument, number) for argument, number in bounds.items()}
            source = FetchedKeys(checked_url(jwks_url), clock=clock, **checked)
        else:
            given = given_key(key, algorithms)
            accepted = given.algorithms
            source = GivenKeys(KeySet([given]))
        self._keys: Final = source
        self._verifier: Final = Verifier(
            rules, accepted, int(_checked_number("max_tokens", max_tokens, least=2)), clock
        )
        where = f"jwks_url={jwks_url!r}" if jwks_url is not None else "key='****'"
        self._shown: Final = f"JWTIdentity({where}, issuer={issuer!r}, audience={audience!r})"

    def __call__(self, request: InboundRequest) -> Caller | Awaitable[Caller | None] | None:
        """Return who the request is for; None for nobody. Under ASGI an awaitable, when keys must be fetched first.

        Raises:
            InvalidHeader: The header was sent twice, is longer than 16 KiB, or is no text.
            Unauthenticated: The token does not hold.
            IdentityUnavailable: There are no keys to verify it with.
        """
        token = self._token(request)
        if token is None:
            return None
        if isinstance(token, InvalidHeader):
            raise token
        keys = self._keys.usable()
        verdict = None if keys is None else self._verifier.verify(token, keys)
        if verdict is None:
            flight = self._keys.fetch()
            if flight is not None:
                if request.environ is None:
                    return self._later(request, token, flight, keys)
                flight.wait()
            # Also without a wait: one that was begun a moment ago may have landed since.
            verdict, keys = self._again(token, keys)
        # From here on an error may be raised: its traceback must not lead to the token.
        del token
        return self._answer(request, verdict, keys)

    async def _later(self, request: InboundRequest, token: str, flight: Flight, before: KeySet | None) -> Caller:
        await flight.wait_async()
        verdict, keys = self._again(token, before)
        del token
        return self._answer(request, verdict, keys)

    def _token(self, request: InboundRequest) -> str | InvalidHeader | None:
        """Return the token that was sent, or what is wrong with its header; the caller raises that."""
        found: str | InvalidHeader
        try:
            text = request.header(self._header, commas=True, at_most=_MAX_TOKEN)
        except InvalidHeader as refusal:
            found = InvalidHeader(refusal.detail, header=self._header)
        else:
            if text is None:
                return None
            scheme, _, rest = text.partition(" ")
            if scheme.lower() == "bearer":
                found = rest.strip(" ")
            elif self._header == "authorization":
                return None
            else:
                found = text
            if "," in found:
                found = has_comma(self._header)
        if self._strip:
            request.remove(self._header)
        return found

    def _again(self, token: str, before: KeySet | None) -> tuple[Verified | str | None, KeySet | None]:
        """Verify a token with the keys that have come since, if any have."""
        keys = self._keys.usable()
        return (None if keys is None or keys is before else self._verifier.verify(token, keys)), keys

    def _answer(self, request: InboundRequest, verdict: Verified | str | None, keys: KeySet | None) -> Caller:
        if isinstance(verdict, Verified):
            request.valid_until = verdict.valid_until
            return verdict.caller
        if keys is None:
            raise IdentityUnavailable("The token cannot be verified now: its issuer's keys cannot be had.")
        raise Unauthenticated(verdict or "No key of the issuer has signed the token.", header=self._header)

    def __repr__(self) -> str:
        return self._shown


def _checked_names(argument: str, names: str | Sequence[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    several = (names,) if isinstance(names, str) else names
    if not isinstance(several, list | tuple | set | frozenset) or not several or not all(map(_is_name, several)):
        raise ConfigurationError(
            f"JWTIdentity.{argument}: a text or a list of texts; None, written out, to not check it"
        )
    return frozenset(several)


def _checked_paths(claims: Mapping[str, str | tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(claims, Mapping) or "identifier" not in claims or not set(_FIELDS).issuperset(claims):
        raise ConfigurationError(
            f"JWTIdentity.claims: a mapping with 'identifier', and maybe others of {', '.join(_FIELDS)}"
        )
    paths = {field: (path,) if isinstance(path, str) else path for field, path in claims.items()}
    for field, path in paths.items():
        if not isinstance(path, tuple) or not path or not all(map(_is_name, path)):
            raise ConfigurationError(f"JWTIdentity.claims: {field}: a claim's name, or a tuple of names for a path")
    return MappingProxyType(paths)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _checked_number(argument: str, number: float, *, least: float | None = None) -> float:
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not is_number or number < (least or 0.0) or (least is None and number == 0):
        raise ConfigurationError(
            f"JWTIdentity.{argument}: a finite number, {'above 0' if least is None else f'at least {least:g}'}"
        )
    return number
