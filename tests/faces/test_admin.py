"""The staff's pages, told as stories of staff who look at sessions and end them."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils import timezone

from django_sessionkit.models import EndReason, UserSession
from tests import store
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
)
from tests.pages import press
from tests.people import CHROME, IPHONE, handle, is_in, is_out, row_of, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.admin_sites")]


def rows_on(page: Any) -> list[uuid.UUID]:
    assert page.status_code == 200
    return [session.pk for session in page.context["cl"].result_list]


# The list.


def test_list_says_who_is_signed_in_where_since_when_and_what_has_ended(alice, bob, root):
    desk = sign_in(root)
    phone = sign_in(alice, IPHONE, "2001:db8::1")
    pc, tablet = sign_in(bob, CHROME, "198.51.100.7"), sign_in(bob, IPHONE)
    UserSession.objects.filter(pk=handle(pc)).revoke(EndReason.LIMIT)
    UserSession.objects.filter(pk=handle(tablet)).update(expires_at=timezone.now())

    page = desk.get(CHANGELIST)
    assert rows_on(page) == [row.pk for row in UserSession.objects.order_by("-started_at")]
    (cells,) = re.findall(r"<tbody>(.*)</tbody>", page.text, re.DOTALL)
    lines = [" ".join(re.sub(r"<[^>]*>", " ", line).split()) for line in cells.split("</tr>")[:-1]]
    assert len(lines) == 4
    assert lines[0].startswith("bob Safari on iOS Ended: Expired 192.0.2.1")
    assert lines[1].startswith("bob Chrome on Windows Ended: Too many devices 198.51.100.7")
    assert lines[2].startswith("alice Safari on iOS Active 2001:db8::1")
    assert lines[3].startswith("root Firefox on Linux Active 192.0.2.1")
    assert f'<a href="{page_of(phone)}">Safari on iOS</a>' in page.text
    assert "Add session" not in page.text


def test_list_takes_as_many_queries_however_many_sessions(alice, root):
    desk = sign_in(root)
    desk.get(CHANGELIST)
    for number in range(10):
        with store.round_trips(4):  # the session, the user; how many, which
            assert len(rows_on(desk.get(CHANGELIST))) == number + 1
        sign_in(User.objects.create_user(f"user{number}", password="secret"), IPHONE)


def test_list_by_state_reason_and_user(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(bob), sign_in(bob)
    limited = handle(pc)
    UserSession.objects.filter(pk=limited).revoke(EndReason.LIMIT)
    UserSession.objects.filter(pk=handle(tablet)).update(expires_at=timezone.now())
    assert rows_on(desk.get(f"{CHANGELIST}?state=active")) == [handle(phone), handle(desk)]
    ended = [handle(tablet), limited]
    assert rows_on(desk.get(f"{CHANGELIST}?state=ended")) == ended
    assert len(rows_on(desk.get(f"{CHANGELIST}?state=nonsense"))) == 4
    assert rows_on(desk.get(f"{CHANGELIST}?end_reason__exact=limit")) == ended[1:]
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    for name in ("started_at", "last_seen_at"):
        assert len(rows_on(desk.get(CHANGELIST, {f"{name}__gte": yesterday}))) == 4
        assert rows_on(desk.get(CHANGELIST, {f"{name}__lt": yesterday})) == []

    page = desk.get(f"{CHANGELIST}?user={alice.pk}")
    assert rows_on(page) == [handle(phone)]
    assert "By user All alice" in as_read(page)
    assert "bob" not in as_read(page)
    # Nor is there a list of all users to choose from.
    filters = re.findall(r'data-filter-title="([^"]*)"', desk.get(CHANGELIST).text)
    assert filters == ["state", "reason", "signed in", "last active"]


@pytest.mark.parametrize("user", ["0", "nobody"])
def test_list_of_a_user_that_there_is_not_is_empty_or_the_whole_list(root, user):
    desk = sign_in(root)
    page = desk.get(f"{CHANGELIST}?user={user}", follow=True)
    assert rows_on(page) == ([] if user == "0" else [handle(desk)])


@pytest.mark.parametrize("key", ["99999999999999999999", "-99999999999999999999", "9" * 400])
def test_a_user_whose_key_no_column_can_hold_has_no_sessions(root, key):
    assert rows_on(sign_in(root).get(f"{CHANGELIST}?user={key}")) == []


@pytest.mark.parametrize(
    "question",
    [
        "user__exact=99999999999999999999",
        "user__in=1,99999999999999999999",
        "user_id=99999999999999999999",
        "ended_by__exact=99999999999999999999",
        "started_at__gte=0001-01-01 00:00:00%2b14:00",
        "started_at__gte=9999-12-31 23:59:59-14:00",
        "started_at__year=99999999999999",
        "last_seen_at__year=0",
        "id__exact=99999999999999999999",
        "ip__exact=nowhere",
        "end_reason__exact=%00",
        "user_agent=%00",
        "user=%00",
    ],
)
def test_a_question_that_makes_no_sense_is_no_error(root, question):
    desk = sign_in(root)
    page = desk.get(f"{CHANGELIST}?{question}", follow=True)
    assert page.status_code == 200
    # Databases differ: some compare what no column can hold.
    assert page.redirect_chain in ([], [(f"{CHANGELIST}?e=1", 302)])


@pytest.mark.parametrize("question", ["", "?e=1"])
def test_an_error_that_no_question_has_caused_is_not_hidden(root, question, monkeypatch):
    def fail(*args):
        raise ValueError("out of order")

    desk = sign_in(root)
    monkeypatch.setattr(admin.ModelAdmin, "changelist_view", fail)
    with pytest.raises(ValueError, match="out of order"):
        desk.get(f"{CHANGELIST}{question}")


def test_staff_who_may_not_see_users_learn_no_names_by_their_keys(alice, bob, staff):
    desk, other = (
        sign_in(staff("view_usersession")),
        sign_in(staff("view_usersession", "view_user")),
    )
    phone = sign_in(bob)
    url = f"{CHANGELIST}?user={alice.pk}"
    assert "alice" not in desk.get(url).text
    assert f"By user All {alice.pk}" in as_read(desk.get(url))
    assert "By user All alice" in as_read(other.get(url))
    # Nor can they find out letter by letter whose e-mail address it is.
    assert rows_on(desk.get(CHANGELIST, {"q": "bob@exam"})) == []
    assert rows_on(other.get(CHANGELIST, {"q": "bob@exam"})) == [handle(phone)]
    assert rows_on(desk.get(CHANGELIST, {"q": "bob"})) == [handle(phone)]


@pytest.mark.parametrize("term", ["ali", "ALICE@ex", "alice ice@", "203.0.113.9", " 203.0.113.9 "])
def test_search_by_name_e_mail_and_address(alice, bob, root, term):
    desk, phone, _ = sign_in(root), sign_in(alice, IPHONE, "203.0.113.9"), sign_in(bob)
    page = desk.get(CHANGELIST, {"q": term})
    assert rows_on(page) == [handle(phone)]
    assert "A user, or a whole address." in as_read(page)


def test_search_by_address_in_any_way_to_write_it(alice, root):
    desk = sign_in(root)
    sign_in(alice, address="110.0.0.1")
    assert rows_on(desk.get(CHANGELIST, {"q": "10.0.0.1"})) == []
    phone = sign_in(alice, address="2001:db8::1")
    for term in ("2001:db8::1", "2001:DB8:0:0::0001"):
        assert rows_on(desk.get(CHANGELIST, {"q": term})) == [handle(phone)]


def test_list_offers_nothing_for_which_the_whole_table_is_sorted_or_counted(root):
    page = sign_in(root).get(CHANGELIST)
    assert "?o=" not in page.text
    assert "_facets" not in page.text


def test_rows_whose_user_is_gone_harm_nobody(alice, root):
    # As after a DELETE in SQL: no constraint has kept them together.
    desk, phone = sign_in(root), sign_in(alice)
    url = page_of(phone)
    User.objects.filter(pk=alice.pk)._raw_delete("default")
    assert rows_on(desk.get(CHANGELIST)) == [handle(desk)]
    assert desk.get(url).status_code == 302


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
        "Last proved who they are: ",
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
    where = "Address: 192.0.2.1, near Berlin &lt;DE&gt; (estimated)"
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


@pytest.mark.parametrize("lookup", ["digest", "digest__startswith", "_to_field", "o"])
def test_digests_can_not_be_found_out_by_trying(root, lookup):
    desk = sign_in(root)
    digest = UserSession.objects.get().digest
    field = {"_to_field": "digest", "o": "digest"}.get(lookup, digest)
    page = desk.get(f"{CHANGELIST}?{lookup}={field}")
    assert page.status_code == (200 if lookup == "o" else 400)
    wrong = desk.get(CHANGELIST, {"q": digest})
    assert rows_on(wrong) == []
