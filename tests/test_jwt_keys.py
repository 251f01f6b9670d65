"""Keys and algorithms of tokens: which are accepted, and the ways to forge a token that do not work."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kwai_middleware import ConfigurationError, Secret
from kwai_middleware.jwt_identity import JWTIdentity
from tests.apps.doors import DOORS, Seen
from tests.support.issuer import AUDIENCE, NAME, Clock, Issuer, bearer, claims, issuer, jwk, key, part, pem, signed

RSA = key("RSA-2048")
EC = key("P-256")
SECRET = b"a-shared-secret-of-sixty-four-bytes-for-the-longest-of-the-hashes"
KINDS = [
    *(("RSA-2048", alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512"), ("Ed25519", "EdDSA"), ("Ed448", "EdDSA"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trusted() -> Iterator[Issuer]:
    """An issuer that publishes one key of each kind, and more that are to be ignored."""
    with issuer() as running:
        running.members = [jwk(key(kind), alg, kid=f"{kind}-{alg}") for kind, alg in KINDS]
        running.members += [jwk(RSA, "RS256", kid="rsa"), jwk(EC, "ES256", kid="any", alg=None, use=None)]
        yield running


@pytest.fixture(scope="module")
def published(trusted: Issuer) -> JWTIdentity:
    """What believes those keys."""
    return trusted.identity()


def given(material: Any, algorithms: Any = None) -> JWTIdentity:
    """What believes one key."""
    return JWTIdentity(key=material, issuer=NAME, audience=AUDIENCE, algorithms=algorithms, clock=Clock())


def holds(seen: Seen) -> bool:
    """Whether a token was believed; if not, it was refused as such."""
    if not seen.app_ran:
        assert (401, "authorization") == (seen.status, seen.problem["header"])
        return False
    assert seen.caller is not None
    return True


def believes(identity: JWTIdentity, token: str) -> bool:
    """Ask through the quicker of the doors."""
    return holds(DOORS[1].ask(bearer(token), identify=identity))


def hs256(content: dict[str, Any], secret: bytes, **header: Any) -> str:
    """Sign with any secret: the library that makes tokens would refuse some of these."""
    text = f"{part({'alg': 'HS256', 'typ': 'JWT'} | header)}.{part(content)}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"


# --- what is accepted


@pytest.mark.parametrize(("kind", "alg"), KINDS)
def test_every_public_kind_is_believed(published: JWTIdentity, kind: str, alg: str) -> None:
    """Each of the usual algorithms works, with published keys and with one in PEM."""
    token = signed(claims(), key(kind), alg, {"kid": f"{kind}-{alg}"})
    assert believes(published, token)
    assert believes(given(pem(key(kind))), token)
    assert believes(given(pem(key(kind)).encode(), [alg]), token)
    assert not believes(published, signed(claims(), key(kind, "forged"), alg, {"kid": f"{kind}-{alg}"}))


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kind", [bytes, bytes.decode, lambda secret: Secret(secret.decode())])
def test_a_shared_secret_is_believed(alg: str, kind: Any) -> None:
    """A secret that is long enough works where its algorithm is named, and no other does."""
    own = given(kind(SECRET), [alg])
    assert believes(own, signed(claims(), SECRET, alg))
    assert not believes(own, signed(claims(), SECRET[:-1] + b"!", alg))


def test_a_certificate_is_a_public_key() -> None:
    """Some services hand out their key in a certificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    begins = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, RSA.public_key(), 1, begins, begins.replace(year=2036))
    certificate = builder.sign(RSA, SHA256()).public_bytes(Encoding.PEM)
    assert believes(given(certificate), signed(claims(), RSA, "RS256"))


@pytest.mark.parametrize("kid", [None, "rsa"])
def test_a_token_may_name_no_key(published: JWTIdentity, kid: str | None) -> None:
    """Without a key id, whichever published key suits the algorithm may have signed."""
    assert believes(published, signed(claims(), RSA, "RS256", {"kid": kid}))


def test_a_published_key_may_have_no_name(trusted: Issuer) -> None:
    """A key without an id is tried for every id, and forged tokens do not hold by it."""
    with issuer() as other:
        other.members = [jwk(EC, "ES256")]
        own = other.identity()
        assert believes(own, signed(claims(), EC, header={"kid": "some"}))
        assert not believes(own, signed(claims(), key("P-256", "forged"), header={"kid": "some"}))
        assert not believes(own, signed(claims(), key("P-256", "forged"), header={"kid": None}))


# --- forgeries


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, " none", "none\0", 0, False, [], ["none"], {}]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_signature_is_no_token(published: JWTIdentity, alg: Any, signature: str) -> None:
    """`none`, however it is written, is not an algorithm."""
    token = f"{part({'alg': alg, 'typ': 'JWT', 'kid': 'rsa'})}.{part(claims())}.{signature}"
    for own in (published, given(pem(RSA)), given(SECRET, ["HS256"])):
        assert not believes(own, token)
    assert not believes(published, f"{part({'typ': 'JWT'})}.{part(claims())}.AAAA")


@pytest.mark.parametrize("private", [RSA, EC], ids=["RSA", "EC"])
def test_a_public_key_is_no_secret(published: JWTIdentity, private: Any) -> None:
    """A token signed with the text or the bytes of the public key, as a shared secret, is refused."""
    public = private.public_key()
    forms = [
        pem(private).encode(),
        pem(private).strip().encode(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(private, "RS256" if private is RSA else "ES256")).encode(),
    ]
    for secret in forms:
        assert not believes(published, hs256(claims(), secret, kid="rsa"))
        assert not believes(given(pem(private)), hs256(claims(), secret))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk(key("P-256", "mallory"), "ES256")},
        {"jku": "https://mallory.example/jwks.json"},
        {"x5u": "https://mallory.example/key.pem"},
        {"x5c": ["MIIB"]},
        {"x5t": "AAAA"},
    ],
    ids=lambda header: next(iter(header)),
)
@pytest.mark.parametrize("kid", ["any", "mallory", None, "../../dev/null", "' OR 1=1 --", "https://mallory.example/"])
def test_a_token_brings_no_key(
    published: JWTIdentity, trusted: Issuer, header: dict[str, Any], kid: str | None
) -> None:
    """Keys and places of keys in a token's own header are not looked at, whatever it calls them."""
    assert not believes(published, signed(claims(), key("P-256", "mallory"), header=header | {"kid": kid}))
    assert 2 >= trusted.fetches


@pytest.mark.parametrize(
    ("kid", "private", "alg"),
    [
        ("rsa", RSA, "RS512"),
        ("rsa", RSA, "PS256"),
        ("P-256-ES256", RSA, "RS256"),
        ("rsa", EC, "ES256"),
        ("P-384-ES384", EC, "ES256"),
    ],
)
def test_a_key_is_used_for_its_own_algorithm_only(published: JWTIdentity, kid: str, private: Any, alg: str) -> None:
    """A key that is published for one algorithm signs with no other, nor with another key's."""
    assert not believes(published, signed(claims(), private, alg, {"kid": kid}))


def test_only_what_is_named_is_accepted(trusted: Issuer) -> None:
    """Algorithms that the app does not name are refused, though the key could do them."""
    own = trusted.identity(algorithms=["ES256"])
    assert believes(own, signed(claims(), EC, header={"kid": "any"}))
    assert not believes(own, signed(claims(), RSA, "RS256", {"kid": "rsa"}))
    assert not believes(given(pem(RSA), ["PS256", "ES256"]), signed(claims(), RSA, "RS256"))
    assert not believes(given(SECRET, ["HS256"]), signed(claims(), SECRET, "HS512"))


def _unusable() -> list[Any]:
    small, curve = key("RSA-1024"), key("secp256k1")
    private = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(EC))
    oct_ = {"kty": "oct", "k": part(SECRET)}
    good = jwk(EC, "ES256")
    return [
        pytest.param(oct_ | {"alg": "HS256"}, SECRET, "HS256", id="oct"),
        pytest.param(oct_ | {"alg": "ES256"}, EC, "ES256", id="oct-in-disguise"),
        pytest.param(good | {"use": "enc"}, EC, "ES256", id="for-encryption"),
        pytest.param(good | {"use": ["sig"]}, EC, "ES256", id="use-a-list"),
        pytest.param(good | {"key_ops": ["sign"]}, EC, "ES256", id="for-signing"),
        pytest.param(good | {"key_ops": 5}, EC, "ES256", id="ops-a-number"),
        pytest.param(good | {"alg": "ES384"}, EC, "ES256", id="of-another-algorithm"),
        pytest.param(good | {"alg": ["ES256"]}, EC, "ES256", id="alg-a-list"),
        pytest.param(good | {"kid": 5}, EC, "ES256", id="kid-a-number"),
        pytest.param(good | {"kty": "RSA"}, EC, "ES256", id="of-another-kind"),
        pytest.param(good | {"kty": ["EC"]}, EC, "ES256", id="kty-a-list"),
        pytest.param(good | {"kty": None}, EC, "ES256", id="no-kind"),
        pytest.param(good | {"crv": "P-384"}, EC, "ES256", id="of-another-curve"),
        pytest.param(good | {"x": good["y"]}, EC, "ES256", id="not-on-the-curve"),
        pytest.param(good | {"x": 5}, EC, "ES256", id="x-a-number"),
        pytest.param(private | {"alg": "ES256"}, EC, "ES256", id="private"),
        pytest.param(jwk(small, "RS256"), small, "RS256", id="RSA-1024"),
        pytest.param(jwk(RSA, "RS256") | {"e": "AQ"}, RSA, "RS256", id="exponent-1"),
        pytest.param(jwk(curve, "ES256K", alg=None), curve, "ES256K", id="secp256k1"),
        pytest.param("ES256", EC, "ES256", id="a-text"),
        pytest.param(None, EC, "ES256", id="null"),
    ]


@pytest.mark.parametrize(("member", "material", "alg"), _unusable())
def test_what_is_no_key_for_signatures_is_ignored(member: Any, material: Any, alg: str) -> None:
    """Beside a good key, one that is secret, weak, broken or for something else counts for nothing."""
    with issuer() as other:
        other.members = [member, jwk(key("P-521"), "ES512", kid="good")]
        own = other.identity()
        assert not believes(own, signed(claims(), material, alg, {"kid": None}))
        assert believes(own, signed(claims(), key("P-521"), "ES512", {"kid": "good"}))


# --- what is refused at start


_PRIVATE = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_SSH = RSA.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


@pytest.mark.parametrize(
    ("material", "algorithms", "about"),
    [
        pytest.param(SECRET, None, "algorithms", id="secret-unnamed"),
        pytest.param(SECRET, ["RS256"], "key", id="secret-as-public"),
        pytest.param(SECRET, ["HS256", "RS256"], "algorithms", id="mixed"),
        pytest.param(SECRET[:31], ["HS256"], "key", id="short"),
        pytest.param(SECRET[:63], ["HS256", "HS512"], "key", id="short-for-one"),
        pytest.param("", ["HS256"], "key", id="empty"),
        pytest.param(5, ["HS256"], "key", id="a-number"),
        pytest.param(_SSH, ["HS256"], "key", id="ssh-as-secret"),
        pytest.param(json.dumps(jwk(RSA, "RS256")), ["HS256"], "key", id="jwk-as-secret"),
        pytest.param(pem(RSA), ["HS256"], "algorithms", id="PEM-as-secret"),
        pytest.param(pem(RSA), ["RS256", "HS256"], "algorithms", id="PEM-mixed"),
        pytest.param(pem(RSA), ["ES256"], "algorithms", id="PEM-of-another-kind"),
        pytest.param(pem(key("RSA-1024")), None, "key", id="RSA-1024"),
        pytest.param(pem(key("secp256k1")), None, "key", id="secp256k1"),
        pytest.param(_PRIVATE, None, "key", id="private"),
        pytest.param(pem(RSA)[:-60], None, "key", id="cut"),
        pytest.param("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", None, "key", id="no-certificate"),
        *(
            pytest.param(pem(RSA), algorithms, "algorithms", id=f"algorithms-{algorithms}")
            for algorithms in (
                [],
                "RS256",
                ["none"],
                ["None"],
                ["RS256", "none"],
                ["rs256"],
                ["ES256K"],
                [None],
                5,
                [["RS256"]],
            )
        ),
    ],
)
def test_a_key_that_lets_tokens_be_forged_is_refused(material: Any, algorithms: Any, about: str) -> None:
    """A mixture, a weak key or a public key in the place of a secret ends at start; the key is not quoted."""
    with pytest.raises(ConfigurationError, match=f"^JWTIdentity.{about}: ") as caught:
        given(material, algorithms)
    text = material.decode("latin-1") if isinstance(material, bytes) else str(material)
    assert len(text) < 20 or text[10:30] not in str(caught.value)


@pytest.mark.parametrize("algorithms", [["HS256"], ["RS256", "HS512"], ["none"], []])
def test_published_keys_are_no_secrets(algorithms: list[str]) -> None:
    """With `jwks_url` no algorithm with a shared secret can be chosen."""
    with pytest.raises(ConfigurationError, match=r"^JWTIdentity.algorithms: "):
        JWTIdentity(jwks_url="https://issuer.example/", issuer=NAME, audience=AUDIENCE, algorithms=algorithms)
