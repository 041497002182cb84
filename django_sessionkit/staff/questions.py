"""
What staff are asked before sessions end: why, whether their own is to go on, and above some number
a sentence to type.
"""

from typing import Any

from django import forms
from django.contrib.admin import helpers
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.forms import readable
from django_sessionkit.models import UserSession


class EndForm(forms.Form):
    """Asks why sessions are to end."""

    note = forms.CharField(
        label=_("Reason"),
        max_length=UserSession._meta.get_field("end_note").max_length,
        widget=AdminTextInputWidget({"autocomplete": "off"}),
        help_text=_("For your colleagues, for example “ticket 4711”. The users do not see it."),
    )

    def clean_note(self) -> str:
        if note := readable(self.cleaned_data["note"]):
            return note
        raise ValidationError(self.fields["note"].error_messages["required"], code="required")


class EndSeveralForm(EndForm):
    """
    Asks for more: whether the session of who asks goes on, if it ``has_own`` among others, and to
    type ``sentence``, if there is one.
    """

    spares_own = forms.BooleanField(
        label=_("Leave my own session out"), required=False, initial=True
    )
    typed = forms.CharField(
        label=_("To confirm"), widget=AdminTextInputWidget({"autocomplete": "off"})
    )

    def __init__(
        self, data: Any = None, *, has_own: bool, sentence: str = "", **kwargs: Any
    ) -> None:
        super().__init__(data, **kwargs)
        self.sentence = sentence
        if not has_own:
            del self.fields["spares_own"]
        if sentence:
            self.fields["typed"].help_text = gettext("Type “%(sentence)s”.") % {
                "sentence": sentence
            }
        else:
            del self.fields["typed"]

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if as_typed(typed) != as_typed(self.sentence):
            message = gettext("This is not “%(sentence)s”.") % {"sentence": self.sentence}
            raise ValidationError(message, code="not_confirmed")
        return typed

    @property
    def leaves_out_own(self) -> bool:
        """Whether the session of who asks goes on: also if it was not known to be among these."""
        return bool(self.cleaned_data.get("spares_own", True))


def as_typed(text: str) -> str:
    """Return a sentence without what does not matter: blanks, and dots or commas in numbers."""
    return "".join(char for char in text.casefold() if char.isalnum())


def context_of(form: forms.Form) -> dict[str, Any]:
    """Return what the admin's templates need to show a form as they show theirs."""
    fieldsets = [(None, {"fields": list(form.fields)})]
    shown = helpers.AdminForm(form, fieldsets, {})  # type: ignore[arg-type]
    return {"adminform": shown, "errors": form.errors, "form": form}
