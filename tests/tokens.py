"""A site that issues tokens, and a service that verifies them without our code."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

from django_sessionkit.exceptions import NoToken
from django_sessionkit.tokens import aissue, issue
from tests.urls import urlpatterns as site

ISSUER, AUDIENCE = "https://shop.example", "orders"
JWKS = "/.well-known/jwks.json"


def give_token(request: HttpRequest) -> HttpResponse:
    """Answers with a token of the session, or with the reason why there is none."""
    try:
        return HttpResponse(issue(request.session))
    except NoToken as refusal:
        return HttpResponse(refusal.code, status=409)


async def agive_token(request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(await aissue(request.session))
    except NoToken as refusal:
        return HttpResponse(refusal.code, status=409)


urlpatterns = [
    *site,
    path("token/", give_token),
    path("atoken/", agive_token),
    path("", include("django_sessionkit.token_urls")),
]


def token_of(browser: Any) -> str:
    """Return a token of the session of a browser."""
    answer = browser.get(_url(browser))
    assert answer.status_code == 200, answer.text
    token: str = answer.text
    return token


def refusal_of(browser: Any) -> str:
    """Return why the session of a browser gets no token."""
    answer = browser.get(_url(browser))
    assert answer.status_code == 409
    code: str = answer.text
    return code


def _url(browser: Any) -> str:
    return f"/{getattr(browser, 'a', '')}token/"  # Django's own client has no "a"


# The service. It has the JWK Set, and nothing else of ours.


def verified(token: str, jwks: dict[str, Any]) -> dict[str, Any]:
    """Return the claims of a token, as PyJWT and jwcrypto verify it."""
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(token)["kid"]]
    algorithms = ["ES256", "EdDSA"]
    claims = jwt.decode(token, key.key, algorithms, audience=AUDIENCE, issuer=ISSUER)
    checked = JWT(
        jwt=token,
        key=JWKSet.from_json(json.dumps(jwks)),
        check_claims={"iss": ISSUER, "aud": AUDIENCE, "exp": None},
        algs=algorithms,
    )
    assert json.loads(checked.claims) == claims
    return dict(claims)


# Parts of tokens.


def encoded(value: Any) -> str:
    """Return what stands for a JSON value, for text or for bytes in a token."""
    data = value if isinstance(value, (bytes, str)) else json.dumps(value)
    data = data.encode() if isinstance(data, str) else data
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a token, unverified."""
    header, claims, _ = token.split(".")
    return tuple(json.loads(urlsafe_b64decode(f"{part}==")) for part in (header, claims))
