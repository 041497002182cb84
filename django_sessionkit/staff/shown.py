"""
Staff end all sessions of a selection: those that the list shows, or those of users. A page says
first how many these are, and whose.
"""

from dataclasses import replace
from urllib.parse import parse_qsl

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

from django_sessionkit import endings
from django_sessionkit.models import Ending
from django_sessionkit.own_sessions import handle_of
from django_sessionkit.reach import LIMIT, Preview, ended_rows, preview
from django_sessionkit.selection import Selection
from django_sessionkit.staff import sentences
from django_sessionkit.staff.changelist import selection_of
from django_sessionkit.staff.ending import EndingAdmin, end_own
from django_sessionkit.staff.log import log_ended, log_ending
from django_sessionkit.staff.permissions import address_of, network_for
from django_sessionkit.staff.progress import (
    begun,
    in_words,
    moment_of_question,
    to_ending,
)
from django_sessionkit.staff.questions import EndSeveralForm, context_of
from django_sessionkit.staff.rank import has_highest_rank, lower_of, person_of
from django_sessionkit.staff.rendering import render

# Seconds for which the request that begins a small ending works on it.
AT_ONCE = 10

LIST = "admin:django_sessionkit_usersession_changelist"


def end_shown_view(admin: EndingAdmin, request: HttpRequest) -> HttpResponse:
    """Ask whether the sessions of the selection in the URL are to end, or in the form: end them."""
    if not (admin.may_end_by_filter(request) and admin.has_view_permission(request)):
        raise PermissionDenied
    site = admin.admin_site
    try:
        return end_shown(site, request, asked_for(request))
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return HttpResponseRedirect(reverse(LIST, current_app=site.name))


def asked_for(request: HttpRequest) -> Selection:
    """
    Return the selection in the form or, before there is one, in the URL. Raises ValidationError for
    what makes no sense, and for what leaves nothing out: that is what the switch is for.
    """
    if "selection" in request.POST:
        selection = Selection.parse(dict(parse_qsl(request.POST["selection"])))
    else:
        selection = selection_of(request)
    if not is_a_part(selection):
        raise ValidationError(gettext("Choose a filter first, or else the switch for everybody."))
    return selection


def is_a_part(selection: Selection) -> bool:
    """Tell whether a selection leaves anything out, beside what has ended already."""
    return replace(selection, state="") != Selection()


def end_shown(site: AdminSite, request: HttpRequest, selection: Selection) -> HttpResponse:
    """
    Ask whether these sessions are to end: how many there are, and whose. The form leads to
    end_shown_view(), which begins the ending, and then to the page that shows how far that is.
    """
    if selection.network:
        selection = replace(selection, network=network_for(request, selection.network))
    selection = replace(selection, state=selection.state or "active")
    found = preview(selection, by=lower_of(request), own=handle_of(request))
    answers = request.POST if "post" in request.POST else None
    number = _number(request, found)
    form = EndSeveralForm(answers, has_own=found.has_own, sentence=number)
    if form.is_valid():
        return _begin(site, request, selection, form, found)
    return render(
        site,
        request,
        "end_shown",
        sentences.question(found.count, found.users, found.is_more),
        preview=found,
        sample=[(row, address_of(request, row)) for row in found.sample],
        what=list(in_words(request, selection)),
        facts=_facts(found),
        selection=urlencode(selection.as_text()),
        asked=moment_of_question(request),
        number=number,
        in_background=endings.are_many(found),
        **context_of(form),
    )


def _number(request: HttpRequest, found: Preview) -> str:
    """
    Return the number that has to be typed, or "". The number on the page may be a little different
    from that of now: sessions begin and end meanwhile.
    """
    if not endings.are_many(found):
        return ""
    shown = request.POST.get("number", "")
    is_number = shown.isdecimal() and len(shown) <= len(str(LIMIT))
    is_large = is_number and (found.is_more or int(shown) > endings.BACKGROUND)
    return shown if is_large else str(found.count)


def _facts(found: Preview) -> list[str]:
    facts: list[str] = []
    if found.staff:
        text = ngettext(
            "%(count)s of these people is staff: %(names)s.",
            "%(count)s of these people are staff: %(names)s.",
            found.staff_count,
        )
        names = sentences.names_of(found.staff, found.staff_count)
        said = text % {"count": sentences.counted(found.staff_count), "names": names}
        facts.append(SafeString(said))  # like the names, which are HTML
    if found.superusers:
        facts.append(sentences.superusers_left_out(found.superusers))
    if found.has_own:
        facts.append(sentences.one_is_own())
    return facts


def _begin(
    site: AdminSite,
    request: HttpRequest,
    selection: Selection,
    form: EndSeveralForm,
    found: Preview,
) -> HttpResponse:
    note = form.cleaned_data["note"]
    what, spares_own = {"filters": selection.as_text()}, form.leaves_out_own
    ending = begun(request, Ending.Scope.FILTER, note, what, spares_own=spares_own)
    if ending:
        return to_ending(site, ending)
    ending = endings.begin(
        selection,
        by=person_of(request),
        note=note,
        ended_from=handle_of(request),
        spares_own=spares_own,
        spares_superusers=not has_highest_rank(request),
    )
    log_ending(ending)
    if endings.are_many(found):
        endings.send(ending)  # else the page of the ending does the work
    else:
        endings.work(ending, AT_ONCE)
        log_ended(ending.by_id, list(ended_rows(ending).values_list("pk", flat=True)), note)
    if found.has_own and not spares_own:
        end_own(request, note)
    return to_ending(site, ending)
