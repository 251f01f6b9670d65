"""Keys that signatures are checked with, and which algorithms each of them may be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["ASYMMETRIC", "SHORTEST_SECRETS", "Key", "KeySet", "algorithms_of"]

SHORTEST_SECRETS: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The algorithms with a shared secret, and how many bytes it must have (RFC 7518, 3.2)."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_NONE: Final = frozenset[str]()
_SMALLEST_RSA: Final = 2048

ASYMMETRIC: Final = frozenset({*_RSA, *_CURVES.values(), "EdDSA"})
"""The algorithms whose public key anybody may have."""

# Of a kind of key, an algorithm whose reader of keys reads all of them. A shared secret (`oct`) is not among them:
# what everybody can fetch is none.
_READERS: Final = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_signatures: Final = jwt.PyJWS()


def algorithms_of(key: object) -> frozenset[str]:
    """Return what a public key may be used for; nothing when it is too weak, of another kind, or private."""
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size >= _SMALLEST_RSA else _NONE
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset({_CURVES[key.curve.name]}) if key.curve.name in _CURVES else _NONE
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey | Ed448PublicKey) else _NONE


class Key:
    """One key. It is shown and serialised nowhere: it may be a shared secret.

    Args:
        material: A public key, or the bytes of a shared secret.
        algorithms: What it may be used for.
        kid: What its owner calls it.
    """

    __slots__ = ("_material", "algorithms", "kid")

    def __init__(self, material: object, algorithms: frozenset[str], kid: str | None = None) -> None:
        self._material: Final = material
        self.algorithms: Final = algorithms
        self.kid: Final = kid

    def signed(self, token: str, algorithm: str) -> bytes | None:
        """Return what a token says, if it was signed with this key."""
        try:
            payload: object = _signatures.decode(token, key=cast("Any", self._material), algorithms=[algorithm])
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return cast("bytes", payload)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a key that tokens are verified with is never serialised")


class KeySet:
    """Keys of one issuer at one time.

    Args:
        keys: All that can be used.
        members: What they were made of; sets with the same are the same.
    """

    __slots__ = ("_keys", "_members")

    def __init__(self, keys: Sequence[Key], members: object = None) -> None:
        self._keys: Final = tuple(keys)
        self._members: Final = members

    @classmethod
    def of(cls, members: Sequence[object]) -> KeySet:
        """Return the usable keys of a JSON Web Key Set (RFC 7517).

        Raises:
            ValueError: There is none.
        """
        keys = [key for key in map(_key_of, members) if key is not None]
        if not keys:
            raise ValueError
        return cls(keys, members)

    def fitting(self, kid: str | None, algorithm: str) -> list[Key]:
        """Return the keys that a token may have been signed with: if it names one, those of that id or without any."""
        return [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid in (None, kid))]

    def is_like(self, other: KeySet) -> bool:
        """Return whether the other has been made of the same."""
        return self._members == other._members


def _key_of(member: object) -> Key | None:
    """Make a key of a member of a key set; None when it is no key to check signatures with."""
    if not isinstance(member, dict):
        return None
    described = cast("dict[str, Any]", member)
    try:
        if described.get("use", "sig") != "sig" or "verify" not in described.get("key_ops", ["verify"]):
            return None
        key: object = _signatures.get_algorithm_by_name(_READERS[described["kty"]]).from_jwk(described)
        kid, algorithms = described.get("kid"), algorithms_of(key)
        if "alg" in described:
            algorithms &= {described["alg"]}
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the other keys of the set are not to blame
        return None
    return Key(key, algorithms, kid) if algorithms and isinstance(kid, str | None) else None
