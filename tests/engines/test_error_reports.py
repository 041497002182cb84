"""Django's error reports show the variables of every frame: none of ours shows a session key."""

import traceback
from pprint import pformat

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.views.debug import SafeExceptionReporterFilter

from django_sessionkit.backends import sealing
from django_sessionkit.handover import issue
from django_sessionkit.headers import sign_in
from django_sessionkit.middleware import SessionMiddleware
from django_sessionkit.visit import cookies
from tests.store import SessionStore, again

pytestmark = pytest.mark.django_db

VERBS = ["read", "insert", "replace", "move", "touch", "remove", "peek"]


@pytest.mark.parametrize(
    "name", ["load", "save", "create", "cycle_key", "delete", "flush", "exists", "delete_by_key"]
)
@pytest.mark.standard("ASVS-3.3.4")
def test_an_error_report_of_a_broken_engine_does_not_show_the_session_key(
    drive, stored, name, monkeypatch
):
    def fail(*args):
        raise RuntimeError("out of order")

    async def afail(*args):
        raise RuntimeError("out of order")

    session, key = again(stored), str(stored.session_key)
    session["cart"] = "kettle"
    by_key = [key] if name in ("exists", "delete_by_key") else []
    for verb in VERBS:
        monkeypatch.setattr(SessionStore, verb, fail)
        monkeypatch.setattr(SessionStore, f"a{verb}", afail, raising=False)
    with pytest.raises(RuntimeError) as caught:
        drive(session, name.removesuffix("_by_key"), *by_key)
    assert keys_shown(caught.value, key) == []


@pytest.mark.standard("ASVS-3.3.4")
def test_an_error_report_of_a_broken_cipher_does_not_show_the_session_key(stored, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of order")

    key = str(stored.session_key)
    monkeypatch.setattr(sealing, "AESGCM", fail)
    with pytest.raises(RuntimeError) as caught:
        SessionStore(key).load()
    assert keys_shown(caught.value, key) == []


def test_an_error_report_of_a_view_does_not_show_what_an_app_gets(alice):
    def give(request):
        key = sign_in(request, alice, "django.contrib.auth.backends.ModelBackend")
        code = issue(request)
        assert len(f"{key} {code}") == 68
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError) as caught:
        SessionMiddleware(give)(RequestFactory().post("/"))
    *_, (frame, _line) = traceback.walk_tb(caught.value.__traceback__)
    variables = SafeExceptionReporterFilter().get_traceback_frame_variables(None, frame)
    shown = {name: pformat(value) for name, value in variables}
    assert shown["key"] == "Hidden('…')"
    assert shown["code"] == "SessionKey('…')"


@pytest.mark.parametrize("step", ["warning", "patch_vary_headers", "_pairs"])
@pytest.mark.standard("ASVS-3.3.4")
def test_an_error_report_of_a_request_does_not_show_the_session_key(stored, step, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of order")

    key, other = str(stored.session_key), "a" * 32
    owner = cookies.security_logger if step == "warning" else cookies
    monkeypatch.setattr(owner, step, fail)
    twice = f"sessionid={key}; sessionid={other}"
    header = twice if step == "warning" else f"sessionid={key}"

    def view(request):
        request.session["cart"] = "kettle"
        request.session.cycle_key()
        return HttpResponse()

    request = RequestFactory().get("/", HTTP_COOKIE=header)
    with pytest.raises(RuntimeError) as caught:
        SessionMiddleware(view)(request)
    assert keys_shown(caught.value, key) == []
    if step == "patch_vary_headers":
        assert keys_shown(caught.value, str(request.session.session_key)) == []


def test_an_error_report_of_a_misspelt_setting_does_not_show_the_session_key(settings):
    settings.SESSION_COOKIE_SAMESITE = "Laxx"

    def view(request):
        request.session["cart"] = "kettle"
        return HttpResponse()

    request = RequestFactory().get("/")
    with pytest.raises(ValueError, match="samesite") as caught:
        SessionMiddleware(view)(request)
    assert keys_shown(caught.value, str(request.session.session_key), everywhere=True) == []


def keys_shown(error, key, everywhere=False):
    """
    Return the variables with a session key that Django's error report shows. Those of the tests and
    their callers do not count.
    """
    shown = []
    for frame, _line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if "/django_sessionkit/" not in name and not (everywhere and "/django/http/" in name):
            continue
        variables = SafeExceptionReporterFilter().get_traceback_frame_variables(None, frame)
        shown += [
            (frame.f_code.co_name, name) for name, value in variables if key in pformat(value)
        ]
    return shown
