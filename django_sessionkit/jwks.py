"""The public keys of tokens, for everybody who verifies tokens."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from django_sessionkit.signing_keys import JWKS_AGE, jwks

MEDIA_TYPE = "application/jwk-set+json"  # RFC 7517 §8.5.2


@login_not_required
@require_safe
@cache_control(public=True, max_age=JWKS_AGE)
def jwks_view(request: HttpRequest) -> HttpResponse:
    """Answer with the JWK Set. It is the same for everybody: no session is looked at."""
    return JsonResponse(jwks(), content_type=MEDIA_TYPE)
