"""Tokens: whose they are, and everything that must not pass for one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parkway.core.errors import (
    ConfigurationError,
    ExpiredToken,
    IdentityUnavailable,
    InvalidKey,
    InvalidToken,
    MissingKey,
)
from parkway.policy.identity import Identity
from parkway.policy.issuers import IdentityConfig, IssuerConfig
from parkway.policy.key_ring import KeyRing
from parkway.policy.signing_keys import read_keys
from parkway.policy.tokens import Tokens
from tests.policy.idp import AUDIENCE, IdentityProvider, part, public_jwk, rsa_key

SECRET = "a shared secret that is longer than 32 bytes"


class Clock:
    """Seconds since 1970 that a test moves."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
async def idp() -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def other() -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def identity(clock: Clock) -> AsyncIterator[Identity]:
    identity = Identity(KeyRing(), clock=clock, environment={"SHARED": SECRET, "SHORT": "x"})
    yield identity
    await identity.close()


def config(*providers: IdentityProvider, **changes: Any) -> IdentityConfig:
    entries = [{"issuer": each.url, "audience": AUDIENCE, "refetch_s": 0.001, **changes} for each in providers]
    return IdentityConfig.model_validate({"issuers": entries})


def trust(identity: Identity, *providers: IdentityProvider, **changes: Any) -> None:
    identity.prepare(config(*providers, **changes))()


async def bearer(identity: Identity, token: str) -> str | None:
    return (await identity.identify(f"Bearer {token}")).user


class TestWhoItIs:
    async def test_a_good_token_is_its_subject(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        caller = await identity.identify(f"Bearer {idp.token()}")
        assert (caller.kind, caller.user, caller.name, caller.team, caller.scopes) == ("user", "ada", "ada", None, None)
        assert caller.key_id.startswith("user-")
        assert await identity.identify(None, idp.token()) == caller

    async def test_claims_say_more_where_the_configuration_names_them(
        self, idp: IdentityProvider, identity: Identity
    ) -> None:
        trust(
            identity, idp, user_claim="email", team_claim="realm.team", tier_claim="https://example.com/tier",
            scopes_claim="scope", scopes_prefix="parkway:",
        )  # fmt: skip
        token = idp.token(
            **{"email": "ada@example.com", "realm": {"team": "ml"}, "https://example.com/tier": "gold"},
            scope="openid parkway:model:* parkway:admin",
        )
        caller = await identity.identify(f"Bearer {token}")
        assert (caller.user, caller.team, caller.tier) == ("ada@example.com", "ml", "gold")
        assert caller.scopes == {"model:*", "admin"}

    async def test_without_the_claim_of_scopes_a_token_is_good_for_nothing(
        self, idp: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp, scopes_claim="scope")
        assert (await identity.identify(f"Bearer {idp.token()}")).scopes == frozenset()

    @pytest.mark.parametrize(
        ("changes", "claims"),
        [
            ({"user_claim": "email"}, {}),
            ({"user_claim": "email"}, {"email": "ada@example.com", "email_verified": False}),
            ({"user_claim": "email"}, {"email": "ada@example.com", "email_verified": "false"}),
            ({}, {"sub": None}),
            ({}, {"sub": ""}),
            ({}, {"sub": "two\nlines"}),
            ({}, {"sub": "x" * 201}),
            ({"team_claim": "team"}, {"team": ["a", "b"]}),
            ({"scopes_claim": "scope"}, {"scope": {"a": 1}}),
            ({"scopes_claim": "scope"}, {"scope": [1]}),
            ({"scopes_claim": "scope"}, {"scope": " ".join(f"model:{n}" for n in range(300))}),
            ({"required_claims": {"hd": "example.com"}}, {}),
            ({"required_claims": {"hd": "example.com"}}, {"hd": "evil.com"}),
            ({"required_claims": {"groups": ["ml", "ops"]}}, {"groups": ["sales"]}),
        ],
    )
    async def test_what_a_token_has_to_say(
        self, idp: IdentityProvider, identity: Identity, changes: dict[str, Any], claims: dict[str, Any]
    ) -> None:
        trust(identity, idp, **changes)
        with pytest.raises(InvalidToken, match="The token's"):
            await bearer(identity, idp.token(**claims))

    async def test_required_claims_that_are_there(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, required_claims={"hd": "example.com", "groups": ["ml", "ops"], "mfa": "true"})
        assert await bearer(identity, idp.token(hd="example.com", groups=["x", "ops"], mfa=True)) == "ada"

    async def test_the_same_subject_of_two_issuers_is_two_accounts(
        self, idp: IdentityProvider, other: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp, other)
        callers = [await identity.identify(f"Bearer {each.token()}") for each in (idp, other)]
        assert callers[0].key_id != callers[1].key_id

    @pytest.mark.parametrize("algorithm", ["RS256", "PS512", "ES256", "EdDSA"])
    async def test_every_asymmetric_kind_of_key(
        self, idp: IdentityProvider, identity: Identity, algorithm: str
    ) -> None:
        keys: dict[str, Any] = {"RS256": rsa_key(), "PS512": rsa_key(), "EdDSA": ed25519.Ed25519PrivateKey.generate()}
        key = keys.get(algorithm, idp.keys["k1"])
        idp.keys = {"k1": key}
        trust(identity, idp)
        assert await bearer(identity, jwt.encode(idp.claims(), key, algorithm, {"kid": "k1"})) == "ada"

    async def test_a_shared_secret_is_asked_of_nobody(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, secret_env="SHARED", algorithms=["HS256"])
        assert await bearer(identity, jwt.encode(idp.claims(), SECRET, "HS256")) == "ada"
        with pytest.raises(InvalidToken, match="signature"):
            await bearer(identity, jwt.encode(idp.claims(), "another secret that is as long as it", "HS256"))
        assert idp.asked == []

    async def test_a_key_of_ours_is_one_still(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        with pytest.raises(InvalidKey, match="not an API key"):
            await identity.identify("Bearer sk-something")
        with pytest.raises(MissingKey):
            await identity.identify(None)

    async def test_two_different_credentials_are_refused(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        token = idp.token()
        assert (await identity.identify(f"Bearer {token}", token)).user == "ada"
        with pytest.raises(InvalidKey, match="Two different credentials"):
            await identity.identify(f"Bearer {token}", idp.token(sub="eve"))


def _hs256(public: bytes) -> Callable[[bytes], bytes]:
    import hashlib
    import hmac

    return lambda data: hmac.new(public, data, hashlib.sha256).digest()


def _none(idp: IdentityProvider) -> str:
    return idp.raw({"alg": "none", "kid": "k1"})


def _none_in_capitals(idp: IdentityProvider) -> str:
    return idp.raw({"alg": "NoNe", "kid": "k1"}, sign=lambda _: b"x")


def _public_key_as_secret(idp: IdentityProvider) -> str:
    pem = (
        idp.keys["k1"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return idp.raw({"alg": "HS256", "kid": "k1"}, sign=_hs256(pem))


def _jwk_as_secret(idp: IdentityProvider) -> str:
    return idp.raw({"alg": "HS256", "kid": "k1"}, sign=_hs256(json.dumps(public_jwk(idp.keys["k1"], "k1")).encode()))


def _own_key_in_header(idp: IdentityProvider) -> str:
    mine = ec.generate_private_key(ec.SECP256R1())
    return idp.token(key=mine, header={"jwk": public_jwk(mine, "k1")})


def _own_key_elsewhere(idp: IdentityProvider) -> str:
    mine = ec.generate_private_key(ec.SECP256R1())
    return idp.token(key=mine, header={"jku": f"{idp.url}/evil", "x5u": f"{idp.url}/evil", "x5c": ["MIIB"]})


def _nested_header(idp: IdentityProvider) -> str:
    return idp.raw(b'{"alg":"ES256","kid":"k1","x":' + b"[" * 2000 + b"]" * 2000 + b"}", sign=idp.es256)


def _nested_payload(idp: IdentityProvider) -> str:
    return idp.raw({"alg": "ES256", "kid": "k1"}, b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", sign=idp.es256)


def _twice(name: str, value: object) -> Callable[[IdentityProvider], str]:
    def token(idp: IdentityProvider) -> str:
        payload = json.dumps(idp.claims()).encode()[:-1] + f', "{name}": {json.dumps(value)}}}'.encode()
        return idp.raw({"alg": "ES256", "kid": "k1"}, payload, sign=idp.es256)

    return token


def _algorithm_twice(idp: IdentityProvider) -> str:
    return idp.raw(b'{"alg":"none","alg":"ES256","kid":"k1"}', sign=idp.es256)


def _with_header(**header: object) -> Callable[[IdentityProvider], str]:
    return lambda idp: idp.raw({"alg": "ES256", "kid": "k1", **header}, sign=idp.es256)


def _with_claims(**claims: object) -> Callable[[IdentityProvider], str]:
    return lambda idp: idp.token(**claims)


def _changed_payload(idp: IdentityProvider) -> str:
    head, _, signature = idp.token().split(".")
    return f"{head}.{part(idp.claims(sub='eve'))}.{signature}"


NOW = time.time()

ATTACKS: dict[str, tuple[Callable[[IdentityProvider], str], str]] = {
    "alg none": (_none, "allows"),
    "alg none in capitals": (_none_in_capitals, "allows"),
    "public key as a secret": (_public_key_as_secret, "allows"),
    "JWK as a secret": (_jwk_as_secret, "allows"),
    "key in the header": (_own_key_in_header, "signature"),
    "keys elsewhere": (_own_key_elsewhere, "signature"),
    "kid with a path": (_with_header(kid="../../../../dev/null"), "does not have"),
    "kid with SQL": (_with_header(kid="k1' OR '1'='1"), "does not have"),
    "kid with a URL": (_with_header(kid="http://169.254.169.254/"), "does not have"),
    "kid that is a list": (_with_header(kid=["k1"]), "`kid`"),
    "kid that is huge": (_with_header(kid="k" * 300), "`kid`"),
    "kid that is empty": (_with_header(kid=""), "`kid`"),
    "another audience": (_with_claims(aud="somebody else"), "aud"),
    "no audience": (_with_claims(aud=None), "aud"),
    "audience with more around it": (_with_claims(aud=f"{AUDIENCE} evil"), "aud"),
    "audience in an object": (_with_claims(aud={AUDIENCE: True}), "aud"),
    "another issuer": (_with_claims(iss="https://evil.example"), "issuer"),
    "issuer with a slash more": (lambda idp: idp.token(iss=idp.url + "/"), "issuer"),
    "issuer in a list": (lambda idp: idp.raw({"alg": "ES256"}, idp.claims(iss=[idp.url]), sign=idp.es256), "issuer"),
    "no issuer": (_with_claims(iss=None), "issuer"),
    "not good yet": (_with_claims(nbf=NOW + 3600), "not good yet"),
    "issued in the future": (_with_claims(iat=NOW + 3600), "not good yet"),
    "never expires": (_with_claims(exp=None), "`exp`"),
    "expires in words": (_with_claims(exp="tomorrow"), "`exp`"),
    "expires at infinity": (_with_claims(exp=10**400), "`exp`"),
    "expires at true": (_with_claims(exp=True), "`exp`"),
    "nested header": (_nested_header, "header"),
    "nested payload": (_nested_payload, "nested"),
    "huge": (_with_claims(x="x" * 20_000), "characters"),
    "subject twice": (_twice("sub", "eve"), "twice"),
    "issuer twice": (_twice("iss", "https://evil.example"), "twice"),
    "expiry twice": (_twice("exp", 10**11), "twice"),
    "algorithm twice": (_algorithm_twice, "twice"),
    "extensions": (_with_header(crit=["b64"], b64=False), "extensions"),
    "another type": (_with_header(typ="logout+jwt"), "typ"),
    "algorithm in a list": (_with_header(alg=["ES256"]), "alg"),
    "algorithm of another key": (_with_header(alg="RS256"), "its key is for"),
    "changed payload": (_changed_payload, "signature"),
    "no signature": (lambda idp: idp.token().rpartition(".")[0] + ".", "signature"),
    "payload that is a list": (lambda idp: idp.raw({"alg": "ES256"}, [1], sign=idp.es256), "object"),
    "header that is no JSON": (lambda idp: idp.raw(b"{", sign=idp.es256), "JSON"),
    "not a number": (
        lambda idp: idp.raw({"alg": "ES256"}, b'{"exp": NaN}', sign=idp.es256), "JSON",
    ),
    "not base64url": (lambda idp: "e+J.e/J.x", "base64url"),
}  # fmt: skip


class TestAttacks:
    @pytest.mark.parametrize("attack", ATTACKS)
    async def test_is_refused(self, idp: IdentityProvider, identity: Identity, attack: str) -> None:
        make, reason = ATTACKS[attack]
        trust(identity, idp)
        token = make(idp)
        for _ in range(2):  # also not the second time: a refusal is not remembered as something else
            with pytest.raises(InvalidToken, match=reason) as caught:
                await bearer(identity, token)
            assert token not in caught.value.message
            assert not any(len(each) > 20 and each in caught.value.message for each in token.split("."))
        assert not [path for path in idp.asked if "evil" in path]

    async def test_algorithms_that_are_not_allowed(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, algorithms=["RS256"])
        with pytest.raises(InvalidToken, match="allows RS256"):
            await bearer(identity, idp.token())

    async def test_a_key_of_one_issuer_signs_for_no_other(
        self, idp: IdentityProvider, other: IdentityProvider, identity: Identity
    ) -> None:
        """Both have a key called k1: an id means something only together with its issuer."""
        trust(identity, idp, other)
        assert await bearer(identity, other.token()) == "ada"
        with pytest.raises(InvalidToken, match="signature"):
            await bearer(identity, other.token(iss=idp.url))
        other.rotate("k1", "only here")
        with pytest.raises(InvalidToken, match="does not have"):
            await bearer(identity, other.token("only here", iss=idp.url))

    async def test_what_was_verified_for_one_issuer_is_not_taken_for_another(
        self, idp: IdentityProvider, other: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp, other)
        good = idp.token()
        assert await bearer(identity, good) == "ada"
        head, _, signature = good.split(".")
        forged = [
            f"{head}.{part(idp.claims(iss=other.url))}.{signature}",
            f"{head}.{part(idp.claims(sub='eve'))}.{signature}",
            good[:-2],
            good + "A",
        ]
        for token in forged:
            with pytest.raises(InvalidToken):
                await bearer(identity, token)

    async def test_a_removed_issuer_is_trusted_no_longer(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        token = idp.token()
        assert await bearer(identity, token) == "ada"
        trust(identity)
        with pytest.raises(InvalidKey):
            await bearer(identity, token)

    async def test_another_audience_holds_for_tokens_that_are_known(
        self, idp: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp)
        token = idp.token()
        assert await bearer(identity, token) == "ada"
        trust(identity, idp, audience="somebody else")
        with pytest.raises(InvalidToken, match="aud"):
            await bearer(identity, token)

    @given(token=st.text(max_size=200))
    async def test_no_text_whatever_breaks_it(self, token: str) -> None:
        tokens = Tokens(IdentityConfig(), {})
        for each in (token, f"{token}.{token}.{token}"):
            assert tokens.known(each) is None
            with pytest.raises(InvalidToken):
                await tokens.verify(each)


class TestTime:
    async def test_a_token_that_is_known_expires_too(
        self, idp: IdentityProvider, identity: Identity, clock: Clock
    ) -> None:
        trust(identity, idp, clock_skew_s=30)
        token = idp.token()
        assert await bearer(identity, token) == "ada"
        clock.ahead_s = 620
        assert await bearer(identity, token) == "ada"
        clock.ahead_s = 640
        for _ in range(2):
            with pytest.raises(ExpiredToken, match="has expired"):
                await bearer(identity, token)
        clock.ahead_s = -100  # set back: it is not good yet
        with pytest.raises(InvalidToken, match="not good yet"):
            await bearer(identity, token)

    async def test_the_clocks_may_differ_by_the_skew(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, clock_skew_s=30)
        now = time.time()
        assert await bearer(identity, idp.token(nbf=now + 20, iat=now + 20)) == "ada"
        assert await bearer(identity, idp.token(exp=now - 20)) == "ada"

    async def test_so_many_are_remembered_and_no_more(self, idp: IdentityProvider, identity: Identity) -> None:
        entry = {"issuer": idp.url, "audience": AUDIENCE}
        identity.prepare(IdentityConfig.model_validate({"issuers": [entry], "max_cached_tokens": 3}))()
        tokens = [idp.token(sub=f"user {number}") for number in range(5)]
        assert [await bearer(identity, token) for token in tokens] == [f"user {number}" for number in range(5)]
        assert len(identity._tokens) == 3
        assert await bearer(identity, tokens[0]) == "user 0"


class TestKeys:
    async def test_a_new_key_is_fetched_when_it_is_first_used(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        await bearer(identity, idp.token())
        idp.rotate("k2")
        await asyncio.sleep(0.01)
        assert await bearer(identity, idp.token("k2")) == "ada"

    async def test_a_key_that_was_taken_back_takes_its_tokens_along(
        self, idp: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp)
        old = idp.token()
        assert await bearer(identity, old) == "ada"
        idp.rotate("k2")
        await asyncio.sleep(0.01)
        await bearer(identity, idp.token("k2"))
        with pytest.raises(InvalidToken, match="does not have"):
            await bearer(identity, old)

    async def test_keys_are_read_again_from_time_to_time(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, refresh_s=0.02)
        old = idp.token()
        assert await bearer(identity, old) == "ada"
        idp.rotate("k2")
        with pytest.raises(InvalidToken):
            while True:
                await bearer(identity, old)
                await asyncio.sleep(0.01)

    async def test_all_who_wait_share_one_fetch(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, refetch_s=60)
        idp.gate.clear()
        waiting = [asyncio.ensure_future(bearer(identity, idp.token(sub=f"user {n}"))) for n in range(20)]
        await idp.reached.wait()
        waiting[0].cancel()  # who leaves does not take the fetch along
        await asyncio.sleep(0.01)
        idp.gate.set()
        assert len({await each for each in waiting[1:]}) == 19
        assert len([path for path in idp.asked if path.endswith("/jwks")]) == 1

    async def test_unknown_keys_do_not_make_us_ask_again_and_again(
        self, idp: IdentityProvider, identity: Identity
    ) -> None:
        trust(identity, idp, refetch_s=60)
        await bearer(identity, idp.token())
        before = len(idp.asked)
        for number in range(20):
            with pytest.raises(InvalidToken, match="does not have"):
                await bearer(identity, idp.token(header={"kid": f"unknown {number}"}))
        assert len(idp.asked) <= before + 2

    async def test_known_keys_outlive_an_outage(
        self, idp: IdentityProvider, identity: Identity, caplog: pytest.LogCaptureFixture
    ) -> None:
        trust(identity, idp, refresh_s=0.01)
        assert await bearer(identity, idp.token()) == "ada"
        idp.status = 503
        await asyncio.sleep(0.1)
        assert await bearer(identity, idp.token(sub="eve")) == "eve"
        assert caplog.text.count("answered 503") == 1

    async def test_keys_that_are_too_old_are_good_no_longer(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, max_stale_s=0.05)
        token = idp.token()
        assert await bearer(identity, token) == "ada"
        idp.status = 500
        await asyncio.sleep(0.06)
        with pytest.raises(IdentityUnavailable) as caught:
            await bearer(identity, token)
        assert caught.value.retry_after_s is not None
        idp.status = 200
        await asyncio.sleep(0.01)
        assert await bearer(identity, token) == "ada"

    @pytest.mark.parametrize("fault", ["status", "redirect", "slow", "garbage", "huge", "bomb", "no keys", "many keys"])
    async def test_an_issuer_that_answers_with_something_else_is_away(
        self, idp: IdentityProvider, identity: Identity, fault: str
    ) -> None:
        match fault:
            case "status":
                idp.status = 500
            case "redirect":
                idp.status = 302
            case "slow":
                idp.gate.clear()
            case "garbage":
                idp.jwks = b"<html>"
            case "huge":
                idp.jwks = b'{"keys": "' + b"x" * 600_000 + b'"}'
            case "bomb":
                idp.jwks = b'{"keys":' + b"[" * 100_000
            case "no keys":
                idp.jwks = {"keys": []}
            case _:
                idp.jwks = {"keys": [public_jwk(idp.keys["k1"], str(number)) for number in range(101)]}
        trust(identity, idp, timeout_s=0.05)
        with pytest.raises(IdentityUnavailable, match="does not answer"):
            await bearer(identity, idp.token())

    @pytest.mark.parametrize(
        "document",
        [
            {"issuer": "https://evil.example"},
            {"jwks_uri": "http://evil.example/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": 7},
        ],
    )
    async def test_a_discovery_document_has_to_be_our_issuers(
        self, idp: IdentityProvider, identity: Identity, document: dict[str, Any]
    ) -> None:
        idp.document = document
        trust(identity, idp)
        with pytest.raises(IdentityUnavailable):
            await bearer(identity, idp.token())
        assert not [path for path in idp.asked if path.endswith("/jwks")]

    async def test_keys_without_discovery(self, idp: IdentityProvider, identity: Identity) -> None:
        idp.document = {"issuer": "https://evil.example"}
        trust(identity, idp, jwks_url=f"{idp.url}/jwks")
        assert await bearer(identity, idp.token()) == "ada"

    async def test_a_token_without_a_key_id_needs_the_only_key(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp)
        key = idp.keys["k1"]
        assert await bearer(identity, idp.token(None, key=key)) == "ada"
        idp.rotate("k2", "k3")
        await asyncio.sleep(0.01)
        assert await bearer(identity, idp.token("k2")) == "ada"
        with pytest.raises(InvalidToken, match="does not have"):
            await bearer(identity, idp.token(None, key=idp.keys["k2"]))

    async def test_an_issuer_that_stays_keeps_its_keys(self, idp: IdentityProvider, identity: Identity) -> None:
        trust(identity, idp, refetch_s=60)
        await bearer(identity, idp.token())
        before = len(idp.asked)
        trust(identity, idp, refetch_s=60)
        idp.status = 500
        assert await bearer(identity, idp.token()) == "ada"
        assert len(idp.asked) == before


class TestJwkSets:
    def test_only_keys_that_check_signatures_are_taken(self) -> None:
        good = ec.generate_private_key(ec.SECP256R1())
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        entries = [
            public_jwk(good, "good"),
            public_jwk(good, "for encryption", use="enc"),
            public_jwk(good, "for other things", key_ops=["encrypt"]),
            public_jwk(good, "of another algorithm", alg="ES512"),
            public_jwk(good, "on another curve", crv="secp256k1"),
            public_jwk(weak, "weak"),
            {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
            {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "!!", "y": 3},
            "no key at all",
            public_jwk(ec.generate_private_key(ec.SECP256R1()), "good"),
        ]
        keys = read_keys({"keys": entries})
        assert set(keys) == {"good", None}
        assert keys["good"].algorithms == {"ES256"}
        assert keys["good"].key.public_numbers() == good.public_key().public_numbers()

    @pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": []}])
    def test_what_is_none(self, document: object) -> None:
        with pytest.raises(ValueError, match="JWK set"):
            read_keys(document)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"algorithms": ["HS256"]}, "shared secret"),
            ({"algorithms": ["RS256", "HS256"]}, "shared secret"),
            ({"algorithms": ["RS256", "HS256"], "secret_env": "X"}, "alone"),
            ({"algorithms": ["none"]}, "algorithms"),
            ({"issuer": "http://idp.example.com"}, "https"),
            ({"issuer": "ftp://idp.example.com"}, "https"),
            ({"issuer": "https://user:secret@idp.example.com"}, "https"),
            ({"jwks_url": "http://10.0.0.1/keys"}, "https"),
            ({"audience": []}, "audience"),
        ],
    )
    def test_what_is_not_safe_is_refused(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            IssuerConfig.model_validate({"issuer": "https://idp.example.com", "audience": "x", **changes})

    def test_an_issuer_stands_once(self) -> None:
        entry = {"issuer": "https://idp.example.com", "audience": "x"}
        with pytest.raises(ValidationError, match="given twice"):
            IdentityConfig.model_validate({"issuers": [entry, entry]})

    @pytest.mark.parametrize("variable", ["SHORT", "MISSING"])
    async def test_a_secret_has_to_be_one(self, identity: Identity, idp: IdentityProvider, variable: str) -> None:
        with pytest.raises(ConfigurationError, match="at least 32"):
            trust(identity, idp, secret_env=variable, algorithms=["HS256"])
