"""How a visitor is told something in place of a view's answer, or along with it."""

from typing import Any, NamedTuple

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.loader import render_to_string
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from django_sessionkit import problems
from django_sessionkit.problems import tells_problems
from django_sessionkit.visit import cookies
from django_sessionkit.visit.client import is_page
from django_sessionkit.visit.redirects import local_url

# The headers of an answer that are about its content, or about where it leads.
OF_THE_CONTENT = {
    "accept-ranges",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "etag",
    "last-modified",
    "location",
    "repr-digest",
    "vary",
}


class Notice(NamedTuple):
    """What a visitor is told."""

    status: int
    title: str
    text: str
    # Where a page is redirected to, in place of this status. None: a page says the text itself.
    to: str | None = None
    says_next: bool = False  # the page that follows says the text, as a message
    extra: dict[str, str] = {}  # what a script is told besides
    level: int = messages.WARNING  # of that message
    may_try_again: bool = False  # the page has a link to where its visitor came from
    code: str = ""  # what a problem is called, where a view tells problems


def tell(request: HttpRequest, notice: Notice) -> HttpResponse:
    """Return the answer: a redirect or a page for a person, JSON for a script."""
    response: HttpResponse
    if tells_problems(request):
        response = problems.answer(notice.status, notice.code, notice.text, **notice.extra)
    elif not is_page(request):
        answer = {"detail": notice.text, **notice.extra}
        response = JsonResponse(answer, status=notice.status)
    elif notice.to is not None:
        response = HttpResponseRedirect(notice.to)
        if notice.says_next:
            leave_messages(request, response, (notice.level, notice.text, ""))
    else:
        # Without the request, whose session a context processor would read.
        link = _link_back(request) if notice.may_try_again else None
        context = {"title": notice.title, "text": notice.text, "link": link}
        page = render_to_string("django_sessionkit/answer.html", context)
        response = HttpResponse(page, status=notice.status)
    add_never_cache_headers(response)
    cookies.keep_from_caches(request, response)
    return response


def _link_back(request: HttpRequest) -> dict[str, str] | None:
    """Return the link of a page that takes the place of another: to that, or to its form."""
    if request.method in ("GET", "HEAD"):
        return {"href": request.get_full_path(), "label": _("Try again")}
    back = local_url(request, request.headers.get("Referer", ""))
    return {"href": back, "label": _("Back to the page")} if back else None


def in_place_of(
    request: HttpRequest, replaced: HttpResponse, response: HttpResponse
) -> HttpResponse:
    """
    Return the response with the cookies, headers and messages of the one that it replaces. They are
    not ours to drop: the state of a sign-in at another site, say.
    """
    for name, cookie in replaced.cookies.items():
        response.cookies.setdefault(name, cookie)
    for name, value in replaced.headers.items():
        if name.lower() not in OF_THE_CONTENT:
            response.headers.setdefault(name, value)
    cookies.keep_from_caches(request, response)
    storage: Any = getattr(request, "_messages", None)
    if storage is not None and storage.used:  # on a page that nobody sees
        shown = [(each.level, each.message, each.extra_tags) for each in storage]
        leave_messages(request, response, *shown)
    return response


def leave_messages(
    request: HttpRequest, response: HttpResponse, *more: tuple[int, str, str]
) -> None:
    """
    Leave messages (level, text, tags) for the next page that shows messages, beside those that wait
    for it already. A site without messages says nothing.
    """
    storage: Any = getattr(request, "_messages", None)
    if storage is None:
        return
    for message in more:
        storage.add(*message)
    # MessageMiddleware has had its turn with the answer. A cookie that it has deleted would keep
    # the age of 0 when it is set again.
    empty = [name for name, cookie in response.cookies.items() if not cookie.value]
    deleted = {name: response.cookies.pop(name) for name in empty}
    storage.update(response)
    for name, cookie in deleted.items():
        response.cookies.setdefault(name, cookie)
