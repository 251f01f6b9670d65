"""The one key that an app gives itself, and the algorithms that it names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from kwai_middleware._jwt.keys import ASYMMETRIC, SHORTEST_SECRETS, Key, algorithms_of
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError

__all__ = ["given_key", "public_algorithms"]

_KNOWN: Final = (*sorted(ASYMMETRIC), *SHORTEST_SECRETS)


def public_algorithms(algorithms: Collection[str] | None) -> frozenset[str]:
    """Return the algorithms that tokens may be signed with where everybody can have the keys.

    Raises:
        ConfigurationError: One of them is unknown, or needs a shared secret.
    """
    chosen = ASYMMETRIC if algorithms is None else _checked(algorithms)
    if not chosen <= ASYMMETRIC:
        raise ConfigurationError(
            "JWTIdentity.algorithms: HS256, HS384 and HS512 need a secret; with a public key, which anyone may have,"
            " anyone could sign"
        )
    return chosen


def given_key(key: object, algorithms: Collection[str] | None) -> Key:
    """Return a key with the algorithms that it is used for.

    Args:
        key: A public key or certificate in PEM, or a shared secret.
        algorithms: What the app wants; None for all that suit a public key.

    Raises:
        ConfigurationError: It is neither, is too short, or does not suit these algorithms. The message never holds it.
    """
    if isinstance(key, Secret):
        material = key.reveal().encode()
    elif isinstance(key, str | bytes):
        material = key.encode() if isinstance(key, str) else key
    else:
        raise ConfigurationError("JWTIdentity.key: a Secret, str or bytes: a public key in PEM, or a shared secret")
    return _public(material, algorithms) if b"-----BEGIN " in material else _shared(material, algorithms)


def _public(pem: bytes, algorithms: Collection[str] | None) -> Key:
    chosen = public_algorithms(algorithms)
    try:
        is_certificate = b"-----BEGIN CERTIFICATE-----" in pem
        key = load_pem_x509_certificate(pem).public_key() if is_certificate else load_pem_public_key(pem)
        suitable = algorithms_of(key)
    except (ValueError, UnsupportedAlgorithm):
        suitable = frozenset[str]()
        key = None
    if not suitable:
        raise ConfigurationError(
            "JWTIdentity.key: a public key or certificate in PEM must be RSA of at least 2048 bits, or on one of the"
            " curves P-256, P-384, P-521, Ed25519, Ed448; the private key stays with the issuer"
        )
    if not chosen & suitable:
        raise ConfigurationError(f"JWTIdentity.algorithms: the key suits none of them, only {_list(suitable)}")
    return Key(key, chosen & suitable)


def _shared(secret: bytes, algorithms: Collection[str] | None) -> Key:
    if algorithms is None:
        raise ConfigurationError("JWTIdentity.algorithms: with a shared secret they must be named, as in ['HS256']")
    chosen = _checked(algorithms)
    if not chosen <= SHORTEST_SECRETS.keys():
        raise ConfigurationError(f"JWTIdentity.key: {_list(chosen - SHORTEST_SECRETS.keys())} need a public key in PEM")
    shortest = max(SHORTEST_SECRETS[name] for name in chosen)
    if len(secret) < shortest:
        raise ConfigurationError(f"JWTIdentity.key: a secret for {_list(chosen)} has at least {shortest} bytes")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        is_secret = b'"kty"' not in secret  # which older versions of the library do not look for
    except jwt.PyJWTError:
        is_secret = False
    if not is_secret:
        raise ConfigurationError("JWTIdentity.key: this is a public key in a form that is not PEM, and no secret")
    return Key(secret, chosen)


def _checked(algorithms: Collection[str]) -> frozenset[str]:
    is_collection = isinstance(algorithms, Collection) and not isinstance(algorithms, str | bytes)
    if not is_collection or not algorithms or not all(name in _KNOWN for name in algorithms):
        raise ConfigurationError(f"JWTIdentity.algorithms: a list of some of {', '.join(_KNOWN)}")
    chosen = frozenset(algorithms)
    if chosen & SHORTEST_SECRETS.keys() and chosen & ASYMMETRIC:
        raise ConfigurationError(
            "JWTIdentity.algorithms: those with a shared secret (HS256, HS384, HS512) and those with a public key"
            " are never accepted together: the public key would be a secret that everybody has"
        )
    return chosen


def _list(algorithms: Iterable[str]) -> str:
    return ", ".join(sorted(algorithms))
