from collections.abc import Mapping
from typing import Any
from unicodedata import category, normalize

from django import forms
from django.contrib.auth import authenticate
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables


class Hidden(str):
    """A text that is a secret. Error reports show variables by repr(), which hides it."""

    def __repr__(self) -> str:
        return "Hidden('…')"


class PasswordForm(forms.Form):
    """Asks a user who is already known for their password."""

    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "current-password", "autofocus": True}),
    )

    def __init__(
        self, request: HttpRequest, user: AbstractBaseUser, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.user = request, user

    @sensitive_variables()
    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        # By authenticate(), like Django's sign-in form: what protects that form against guessing
        # protects this form, too.
        found = authenticate(self.request, username=self.user.get_username(), password=password)
        if found is None or found.pk != self.user.pk:
            raise ValidationError(
                _("That is not the password of this account."), code="invalid_login"
            )
        self.user = found  # with its new hash, if authenticate() has upgraded that
        return password


# Characters. Names of users are shorter, and to bring a long text into one form takes time.
LONGEST_USERNAME = 1000


def as_username(text: str) -> str:
    """Return the name of a user as Django's sign-in form reads it, and as it stores that."""
    return normalize("NFKC", text.strip()) if len(text) <= LONGEST_USERNAME else text


# Of the characters that cannot be seen, those that Persian and some emoji are written with.
JOINERS = "\u200c\u200d"
# Letters and a symbol that cannot be seen: fillers of Hangul, and Braille without a dot.
BLANKS = "\u115f\u1160\u3164\uffa0\u2800"


class LabelForm(forms.Form):
    """Asks for the name of a device. Without one, the device is called by its browser."""

    label = forms.CharField(
        label=_("Name"),
        max_length=64,
        required=False,
        widget=forms.TextInput({"autocomplete": "off", "autofocus": True}),
    )

    def __init__(self, data: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if data is not None and "label" in data:
            data = {"label": readable(str(data["label"]))}
        super().__init__(data, **kwargs)


def readable(text: str) -> str:
    """
    Return a name on one line, without control characters, which databases refuse, and without those
    that turn the direction of the text around it.
    """
    kept = (char for char in " ".join(text.split()) if char.isprintable() or char in JOINERS)
    text = "".join(kept)
    can_be_seen = any(category(char)[0] in "LNPS" and char not in BLANKS for char in text)
    return text if can_be_seen else ""
