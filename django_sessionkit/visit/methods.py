"""How a user signed in, in words, as far as the authentication backend tells."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

ORGANISATION = _("through your organisation")
PASSWORD = _("with a password")

# The beginning of the dotted path of a backend. What signs users in in more than one way, as
# allauth's backend does, tells nothing.
METHODS: dict[str, Promise] = {
    "django.contrib.auth.backends.ModelBackend": PASSWORD,
    "django.contrib.auth.backends.AllowAllUsersModelBackend": PASSWORD,
    "django.contrib.auth.backends.RemoteUserBackend": ORGANISATION,
    "django.contrib.auth.backends.AllowAllUsersRemoteUserBackend": ORGANISATION,
    "django_auth_adfs.backend.": ORGANISATION,
    "django_auth_ldap.backend.": _("with the password of your organisation"),
    "django_cas_ng.backends.": ORGANISATION,
    "djangosaml2.backends.": ORGANISATION,
    "mozilla_django_oidc.auth.": ORGANISATION,
    "sesame.backends.": _("with a link"),
    "social_core.backends.apple.": _("with Apple"),
    "social_core.backends.azuread": _("with Microsoft"),
    "social_core.backends.facebook.": _("with Facebook"),
    "social_core.backends.github.": _("with GitHub"),
    "social_core.backends.google.": _("with Google"),
    "social_core.backends.linkedin.": _("with LinkedIn"),
    "social_core.backends.microsoft.": _("with Microsoft"),
    "social_core.backends.saml.": ORGANISATION,
}


def method_of(backend: str) -> str:
    """Return how this authentication backend signs users in, such as "with a password", or ""."""
    found = (words for start, words in METHODS.items() if backend.startswith(start))
    return str(next(found, ""))
