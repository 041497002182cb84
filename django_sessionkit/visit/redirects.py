"""Redirects to another page, with the way back to this one."""

from urllib.parse import quote, unquote, urlsplit

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme

# Characters of the way back in a URL. Proxies take headers of 4 KB.
LONGEST = 3000


def sign_in_url() -> str | None:
    """Return the URL of the sign-in page, or None if LOGIN_URL names no view."""
    try:
        return iri_to_uri(resolve_url(settings.LOGIN_URL))
    except NoReverseMatch:
        return None


def path_of(url: str) -> str:
    """Return the path of a URL without percent signs, as ``request.path`` has that of a request."""
    return unquote(urlsplit(url).path)


def way_back(back: str) -> str:
    """Return a URL to come back to, as far as another URL can hold it: Django and proxies refuse
    long redirects. What is too long loses its query, or is "" for the usual page."""
    shorter = (each for each in (back, back.partition("?")[0]) if len(quote(each)) <= LONGEST)
    return next(shorter, "")


def with_way_back(request: HttpRequest, url: str, back: str) -> HttpResponseRedirect:
    """Redirect a visitor to a page, with ``?next=`` to bring them back to the path ``back``."""
    back = way_back(back)
    if urlsplit(url).netloc not in ("", request.get_host()):
        back = request.build_absolute_uri(back)
    return redirect_to_login(back, url)


def local_url(request: HttpRequest, url: str) -> str:
    """Return this URL, which a visitor has sent, if it leads to this site. Or else return ""."""
    is_local = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if is_local else ""
