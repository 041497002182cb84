"""
The switch: it ends every session of everybody, of all staff or of one user, or those of them from
before some time. It takes effect at once, whatever the tables say.
"""

from contextlib import suppress
from typing import Any

from django import forms
from django.contrib.admin import ModelAdmin
from django.contrib.admin.widgets import AdminRadioSelect, AdminTextInputWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit import endings
from django_sessionkit.forms import as_username
from django_sessionkit.models import Ending
from django_sessionkit.own_sessions import handle_of
from django_sessionkit.proofs import ask_for_proof
from django_sessionkit.selection import finds_all_staff, staff
from django_sessionkit.staff.ending import end_own
from django_sessionkit.staff.log import log_ending
from django_sessionkit.staff.progress import begun, moment_of_question, to_ending
from django_sessionkit.staff.questions import EndSeveralForm, context_of
from django_sessionkit.staff.rank import (
    has_highest_rank,
    is_superuser,
    may_throw_switch,
    person_of,
)
from django_sessionkit.staff.rendering import render

SCOPES = [
    (Ending.Scope.EVERYBODY.value, _("Every session of everybody")),
    (Ending.Scope.STAFF.value, _("Every session of all staff")),
    (Ending.Scope.USER.value, _("Every session of one user")),
]


class SwitchForm(EndSeveralForm):
    """Asks whose sessions are to end, and from before when."""

    scope = forms.ChoiceField(
        label=_("End"), choices=SCOPES, widget=AdminRadioSelect({"class": "radiolist"})
    )
    user = forms.CharField(
        label=_("User"),
        required=False,
        widget=AdminTextInputWidget({"autocomplete": "off"}),
        help_text=_("The whole name with which the user signs in. Only for the sessions of one."),
    )
    before = forms.DateTimeField(
        label=_("Only from before"),
        required=False,
        widget=forms.DateTimeInput({"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    field_order = ["scope", "user", "before", "note", "spares_own", "typed"]

    def __init__(self, data: Any = None, *, by_superuser: bool) -> None:
        super().__init__(data, has_own=True, sentence=gettext("END ALL SESSIONS"))
        self.by_superuser = by_superuser
        if not finds_all_staff():
            scope: Any = self.fields["scope"]
            scope.choices = [each for each in SCOPES if each[0] != Ending.Scope.STAFF]
        self.fields["before"].help_text = gettext(
            "Sessions whose users have proved who they are since then go on. Leave this empty to"
            " end all sessions. The time zone is %(zone)s."
        ) % {"zone": timezone.get_current_timezone_name()}

    def clean_before(self) -> Any:
        before = self.cleaned_data["before"]
        if before and before.year < 1970:  # with which a database may have trouble
            raise ValidationError(self.fields["before"].error_messages["invalid"], code="invalid")
        if before and before > timezone.now():
            raise ValidationError(_("This is in the future."), code="future")
        return before

    def clean(self) -> dict[str, Any]:
        answers = super().clean() or self.cleaned_data
        name, is_of_user = answers.get("user", ""), answers.get("scope") == Ending.Scope.USER
        answers["person"] = self._person(name) if name else None
        if is_of_user and not answers["person"]:
            self.add_error("user", _("There is no user of this name."))
        if is_superuser(answers["person"]) and not self.by_superuser:
            self.add_error("user", _("Only superusers end the sessions of a superuser."))
        if name and answers.get("scope") and not is_of_user:
            self.add_error("user", _("Leave this empty, or choose the sessions of one user."))
        return answers

    def _person(self, name: str) -> Any:
        model = get_user_model()
        with suppress(ValueError, ValidationError):  # where user names are numbers, or UUIDs
            users = model._base_manager.filter(**{model.USERNAME_FIELD: as_username(name)})
            return users.first()
        return None


def switch_view(admin: "ModelAdmin[Any]", request: HttpRequest) -> HttpResponse:
    """
    Ask, and take a recent proof of identity (ASVS 7.5.3). Then throw the switch, and lead to the
    page that shows how far the rest of the work is.
    """
    if not may_throw_switch(request):
        raise PermissionDenied
    if asked := ask_for_proof(request, None):
        return asked
    answers = request.POST if request.method == "POST" else None
    form = SwitchForm(answers, by_superuser=has_highest_rank(request))
    if form.is_valid():
        return _throw(admin, request, form)
    return render(
        admin.admin_site,
        request,
        "switch",
        gettext("End every session"),
        asked=moment_of_question(request),
        **context_of(form),
    )


def _throw(admin: "ModelAdmin[Any]", request: HttpRequest, form: SwitchForm) -> HttpResponse:
    answers = form.cleaned_data
    scope, note, user = Ending.Scope(answers["scope"]), answers["note"], answers["person"]
    what = {"users": [str(user.pk)]} if user else {}
    before, spares_own = answers["before"], form.leaves_out_own
    # Without a time, it is about all sessions from before its beginning.
    columns = {"before": before or F("created_at"), "spares_own": spares_own}
    ending = begun(request, scope, note, what, **columns)
    if ending:
        return to_ending(admin.admin_site, ending)
    ending = endings.throw(
        scope,
        by=person_of(request),
        note=note,
        ended_from=handle_of(request),
        user=user,
        before=before,
        spares_own=spares_own,
    )
    log_ending(ending)
    endings.send(ending)  # else the page of the ending does the work
    if not spares_own and before is None and _is_of(request.user, scope, user):
        end_own(request, note)
    return to_ending(admin.admin_site, ending)


def _is_of(who: Any, scope: Ending.Scope, user: Any) -> bool:
    """Tell whether the switch ends the sessions of this person, too."""
    if scope == Ending.Scope.STAFF:
        return bool(staff().filter(pk=who.pk).exists())
    return scope == Ending.Scope.EVERYBODY or who == user
