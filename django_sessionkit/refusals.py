"""Tell from a view's answer whether it has refused a stranger, and where it leads."""

from urllib.parse import parse_qs, urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.urls import Resolver404, resolve

from django_sessionkit.conf import conf
from django_sessionkit.visit.redirects import leads_somewhere, login_url, path_of, sign_in_url

# Names of views that answer while a session is locked.
OPEN_VIEWS = {"reauthenticate", "session_limit", "logout", "jsi18n", "javascript-catalog"}


def refuses(request: HttpRequest, response: HttpResponse) -> bool:
    """
    Tell whether a view has refused a stranger: by 401, by 403, or by a redirect to a sign-in page.
    Somebody who is signed in by other means is no stranger, and the sign-in page is for strangers.
    """
    if response.status_code not in (401, 403) and not (
        is_redirect(response) and _is_sign_in(request, response.headers["Location"])
    ):
        return False
    return not (is_known(request) or _is_sign_in_page(request))


def redirects_somewhere(response: HttpResponse) -> bool:
    return is_redirect(response) and leads_somewhere(response.headers["Location"])


def is_redirect(response: HttpResponse) -> bool:
    if response.status_code not in (301, 302, 303, 307, 308) or "Location" not in response.headers:
        return False
    try:
        urlsplit(response.headers["Location"])
    except ValueError:  # nobody can say where to
        return False
    return True


def is_known(request: HttpRequest) -> bool:
    return bool(getattr(getattr(request, "user", None), "is_authenticated", False))


def _is_sign_in(request: HttpRequest, url: str) -> bool:
    """
    Tell whether a redirect leads to a sign-in page: that of LOGIN_URL, one that is named "login",
    as the admin's is, or any page that is to lead back to where the visitor is.
    """
    host, parts, own = request.get_host(), urlsplit(url), login_url()
    there = (parts.netloc or host, path_of(url))
    if own is not None and there == (urlsplit(own).netloc or host, path_of(own)):
        return True
    back = parse_qs(parts.query).get(REDIRECT_FIELD_NAME, [""])[-1]  # QueryDict() has a limit
    here = request.get_full_path()
    if back in (here, request.build_absolute_uri(here)):
        return True
    try:
        return (parts.netloc or host) == host and resolve(path_of(url)).url_name == "login"
    except Resolver404:
        return False


def _is_sign_in_page(request: HttpRequest) -> bool:
    # By its name, too: the admin has a page of its own.
    name = request.resolver_match and request.resolver_match.url_name
    return name == "login" or request.path == path_of(sign_in_url() or "")


def is_open_while_locked(request: HttpRequest) -> bool:
    """Tell the pages that unlock a session, or lead to another one, from all others."""
    name = request.resolver_match and request.resolver_match.url_name
    if name in OPEN_VIEWS or _is_sign_in_page(request):
        return True
    own = conf.SESSIONKIT_REAUTHENTICATION_URL
    path = path_of(resolve_url(own)).rstrip("/") if own else ""
    # With what is below it: the site's own way to prove an identity may take more than one page.
    return path != "" and f"{request.path}/".startswith(f"{path}/")
