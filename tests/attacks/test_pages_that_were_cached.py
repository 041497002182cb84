"""
Published attacks on other systems, tried on this one: a cache gives away what is in a page for
somebody else. docs/security.md has the list.
"""

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path

from tests.people import is_in, key_of
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


def news(request):
    """The same for everybody, and it looks at no session."""
    return HttpResponse("news", headers={"Cache-Control": "public, max-age=600"})


async def anews(request):
    return news(request)


urlpatterns = [*site, path("news/", news), path("anews/", anews)]


@pytest.fixture
def cached(settings):
    """A site that keeps all its pages in a cache, and saves every session."""
    settings.SESSION_SAVE_EVERY_REQUEST = True
    update, fetch = (
        f"django.middleware.cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom")
    )
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE, fetch]
    cache.clear()
    yield
    cache.clear()


# Django: SESSION_SAVE_EVERY_REQUEST, and a page that does not look at the session.


@pytest.mark.usefixtures("cached")
@pytest.mark.standard("ASVS-14.3.2")
def test_cve_2026_35192_cached_page_gives_away_no_session(shopper, browse):
    browser, stranger = shopper(), browse()
    key = key_of(browser)
    url = f"/{browser.a}news/"
    answer = browser.get(url)
    assert answer.cookies["sessionid"].value == key
    assert "Cookie" in answer.headers["Vary"]
    assert {"private", "no-store"} <= set(answer.headers["Cache-Control"].split(", "))
    for _ in range(2):
        assert "sessionid" not in stranger.get(url).cookies
    assert is_in(browser)
    assert not is_in(stranger)
