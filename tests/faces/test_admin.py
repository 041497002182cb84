"""The staff's pages, told as stories of staff who look at sessions and end them."""

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import RequestFactory

from django_sessionkit.models import UserSession
from tests.desk import (
    CHANGELIST,
    FAREWELL,
    answer,
    as_read,
    choose,
    delete_url,
    end,
    log_entries,
    page_of,
    post,
    rows_on,
)
from tests.pages import press
from tests.people import IPHONE, handle, is_in, is_out, row_of, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.admin_sites")]


# One session.


@pytest.mark.standard("ASVS-3.2.2")
def test_page_of_a_session_says_what_is_known_and_lets_nobody_change_it(alice, root):
    desk, phone = sign_in(root), sign_in(alice, f"{IPHONE} <script>alert(1)</script>")
    page = desk.get(page_of(phone))
    text = as_read(page)
    for fact in (
        f"Handle: {handle(phone)}",
        "User: alice",
        "Device: Safari on iOS",
        "Address: 192.0.2.1",
        "User agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X)",
        "Signed in: ",
        "Password last entered: ",
        "Last active: ",
        "Expires: ",
        "State: Active",
        "Ended: -",
        "Ended by: -",
    ):
        assert fact in text
    assert "<script>alert" not in page.text
    fields = re.findall(
        r"<(?:input|select|textarea)[^>]*>", page.text.partition("usersession_form")[2]
    )
    assert [field for field in fields if "csrfmiddlewaretoken" not in field] == []
    assert (
        f'<a role="button" href="{delete_url(phone)}" class="deletelink">End this session</a>'
        in page.text
    )
    assert "Delete" not in text
    assert press(desk, page_of(phone), user=root.pk).status_code == 403
    assert desk.get(f"{CHANGELIST}add/").status_code == 403


def test_device_that_nothing_is_known_of_has_its_pages_too(alice, root):
    desk, phone = sign_in(root), sign_in(alice, user_agent="", address="")
    for url in (CHANGELIST, page_of(phone), delete_url(phone)):
        assert "Unknown device" in as_read(desk.get(url))
    for url in (page_of(phone), delete_url(phone)):
        assert "Address: -" in as_read(desk.get(url))


def test_page_of_a_session_says_roughly_where_it_is_if_that_is_known(alice, root, monkeypatch):
    monkeypatch.setattr("django_sessionkit.models.place_of", {"192.0.2.1": "Berlin <DE>"}.get)
    desk, phone = sign_in(root), sign_in(alice)
    where = "Address: 192.0.2.1 , near Berlin &lt;DE&gt; (estimated)"
    assert where in as_read(desk.get(page_of(phone)))


def test_popup_has_no_button(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    assert "End this session" not in desk.get(f"{page_of(phone)}?_popup=1").text


# Who may do what.


def test_who_may_only_see(alice, staff):
    desk, phone = sign_in(staff("view_usersession")), sign_in(alice)
    assert handle(phone) in rows_on(desk.get(CHANGELIST))
    assert "End selected sessions" not in desk.get(CHANGELIST).text
    page = desk.get(page_of(phone))
    assert page.status_code == 200
    assert "End this session" not in page.text
    assert desk.get(delete_url(phone)).status_code == 403
    assert post(desk, delete_url(phone)).status_code == 403
    choose(desk, "delete_selected", row_of(phone), post="yes", note="no reason")
    assert is_in(phone)


@pytest.mark.standard("ASVS-7.4.5")
def test_who_may_end_may_see_even_superusers(alice, root, staff):
    desk, phone, _ = sign_in(staff("end_usersession")), sign_in(alice), sign_in(root)
    assert "Sessions" in as_read(desk.get("/admin/"))
    assert len(rows_on(desk.get(CHANGELIST))) == 3
    assert "End this session" in desk.get(page_of(phone)).text
    end(desk, delete_url(phone))
    assert is_out(phone, FAREWELL)


@pytest.mark.parametrize("permission", [None, "delete_user"])
@pytest.mark.standard("ASVS-8.2.2")
def test_other_staff_see_nothing_and_end_nothing(alice, staff, permission):
    desk, phone = sign_in(staff(*[permission] if permission else [])), sign_in(alice)
    for url in (
        CHANGELIST,
        page_of(phone),
        delete_url(phone),
        f"{CHANGELIST}{handle(phone)}/history/",
    ):
        assert desk.get(url).status_code == 403
        assert post(desk, url).status_code == 403
    assert "Sessions" not in as_read(desk.get("/admin/"))
    assert is_in(phone)


def test_visitors_who_are_not_staff_are_asked_to_sign_in(alice, bob):
    phone, pc = sign_in(alice), sign_in(bob)
    for url in (CHANGELIST, page_of(phone), delete_url(phone)):
        answer = pc.get(url)
        assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={url}")
        assert post(pc, url).status_code == 302
    assert is_in(phone)


# Deleting a user.


@pytest.mark.standard("ASVS-7.4.2")
def test_who_may_delete_users_may_delete_those_with_sessions(alice, bob, staff):
    desk, phone, pc = sign_in(staff("view_user", "delete_user")), sign_in(alice), sign_in(bob)
    ended = sign_in(alice)
    UserSession.objects.filter(pk=handle(ended)).revoke()
    for site in ("admin", "staff"):
        page = desk.get(f"/{site}/auth/user/{alice.pk}/delete/")
        assert "Are you sure you want to delete the user" in as_read(page)
    assert press(desk, f"/admin/auth/user/{alice.pk}/delete/", post="yes").status_code == 302
    assert not UserSession.objects.filter(user_id=alice.pk).exists()
    assert phone.get("/whoami/").text == "AnonymousUser"

    response = choose(desk, "delete_selected", bob, url="/admin/auth/user/", post="yes")
    assert response.status_code == 302
    assert not UserSession.objects.filter(user_id=bob.pk).exists()
    assert pc.get("/whoami/").text == "AnonymousUser"


def test_who_may_end_sessions_may_not_therefore_delete_users(alice, staff):
    desk = sign_in(staff("view_user", "end_usersession"))
    sign_in(alice)
    assert post(desk, f"/admin/auth/user/{alice.pk}/delete/").status_code == 403
    request = RequestFactory().get("/")
    request.user = User.objects.get(pk=alice.pk)
    assert not admin.site.get_model_admin(UserSession).has_delete_permission(request)


# What must not be seen.


@pytest.mark.standard("ASVS-3.3.4", "ASVS-14.2.1", "ASVS-16.2.5")
def test_neither_digests_nor_session_keys_are_on_any_page_in_the_log_or_in_a_url(alice, bob, root):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(bob)
    devices = [desk, phone, pc]
    keys = [device.cookies["sessionid"].value for device in devices]
    secrets = [*keys, *UserSession.objects.values_list("digest", flat=True)]
    users = [f"/{site}/auth/user/" for site in ("admin", "staff")]
    urls = [
        "/admin/",
        "/admin/django_sessionkit/",
        CHANGELIST,
        f"{CHANGELIST}?state=active",
        *users,
    ]
    for device in devices:
        urls += [page_of(device), delete_url(device), f"{CHANGELIST}{handle(device)}/history/"]
    for user in (alice, bob, root):
        urls += [f"{url}{user.pk}/{name}/" for url in users for name in ("change", "delete")]

    def look() -> None:
        for url in urls:
            page = desk.get(url)
            assert page.status_code == 200
            seen = "\n".join([page.text, *map(str, page.headers.items()), *map(str, log_entries())])
            assert "digest" not in seen
            assert [secret for secret in secrets if secret in seen] == []
        assert [secret for secret in secrets for url in urls if secret in url] == []

    look()
    asked = choose(desk, "delete_selected", row_of(phone), row_of(pc))
    assert [secret for secret in secrets if secret in asked.text] == []
    response = answer(desk, asked)
    assert [secret for secret in secrets if secret in str(response.headers)] == []
    assert len(log_entries()) == 2
    look()


@pytest.mark.parametrize("lookup", ["digest", "digest__startswith", "_to_field", "o", "q"])
def test_digests_can_not_be_found_out_by_trying(root, lookup):
    desk = sign_in(root)
    digest = UserSession.objects.get().digest
    right, wrong = {"_to_field": ("digest", "signature")}.get(lookup, (digest, digest[::-1]))
    pages = [desk.get(CHANGELIST, {lookup: value}) for value in (right, wrong)]
    assert [page.status_code for page in pages] == [400 if lookup == "_to_field" else 200] * 2
    if lookup != "_to_field":
        assert rows_on(pages[0]) == rows_on(pages[1]) == ([handle(desk)] if lookup == "o" else [])
