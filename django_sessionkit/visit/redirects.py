"""Redirects to another page, with the way back to this one."""

from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

from django.conf import global_settings, settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language

# Characters of the way back in a URL. Proxies take headers of 4 KB.
LONGEST = 3000
# LOGIN_URL, on a site that does not set it; and a path where nobody has a page.
DEFAULT, NOWHERE = global_settings.LOGIN_URL, "/django_sessionkit/nowhere/"


def login_url() -> str | None:
    """Return LOGIN_URL as a URL, or None if it names no view. There need not be a page."""
    try:
        return iri_to_uri(resolve_url(settings.LOGIN_URL))
    except NoReverseMatch:
        return None


def sign_in_url() -> str | None:
    """Return the URL of the sign-in page, or None if LOGIN_URL leads to no page."""
    url = login_url()
    return url if url is not None and leads_somewhere(url) else None


def leads_somewhere(url: str) -> bool:
    """
    Tell whether a view of this site answers a URL. The URL of another host, or outside of the path
    that this site has, is another server's, and is taken for a good one.
    """
    path, prefix = path_of(url), get_script_prefix()
    if urlsplit(url).netloc or not path.startswith(prefix):
        return True
    path = path.removeprefix(prefix[:-1])
    route = _route(path)
    # Where Django's default finds the view for all that is left, of a CMS say, the site has not
    # said that this view has a sign-in page.
    return route is not None and not (path == DEFAULT and route == _route(NOWHERE))


def _route(path: str) -> str | None:
    """Return the pattern of the view that answers a path, or None. Django's middleware may redirect
    to the path with a slash at its end, or with the language at its beginning."""
    paths = [path, f"/{get_language()}{path}"]
    if settings.APPEND_SLASH:
        paths += [f"{each}/" for each in paths]
    for each in paths:
        with suppress(Resolver404):
            return resolve(each).route
    return None


def to_sign_in(request: HttpRequest, back: str) -> HttpResponseRedirect:
    """
    Redirect a visitor to the sign-in page, with the way back. Raises PermissionDenied if there is
    no such page.
    """
    if (url := sign_in_url()) is None:
        raise PermissionDenied
    return with_way_back(request, url, back)


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
    # Here, because the system checks import this module on a site without that app, too.
    from django.contrib.auth.views import redirect_to_login

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
