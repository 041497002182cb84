from django import forms
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class CheckoutForm(forms.Form):
    title: str | Promise


class AddressForm(CheckoutForm):
    title = _("Address")
    name = forms.CharField(
        label=_("Name"), max_length=100, widget=forms.TextInput({"autocomplete": "name"})
    )
    street = forms.CharField(
        label=_("Street and number"),
        max_length=100,
        widget=forms.TextInput({"autocomplete": "street-address"}),
    )
    postcode = forms.CharField(
        label=_("Postcode"), max_length=12, widget=forms.TextInput({"autocomplete": "postal-code"})
    )
    city = forms.CharField(
        label=_("City"), max_length=100, widget=forms.TextInput({"autocomplete": "address-level2"})
    )


METHODS = [
    ("post", _("By post, in three days")),
    ("bike", _("By cargo bike, tomorrow")),
    ("pickup", _("I pick it up at the shop")),
]


class DeliveryForm(CheckoutForm):
    title = _("Delivery")
    method = forms.ChoiceField(
        label=_("How should it get to you?"),
        choices=METHODS,
        widget=forms.RadioSelect,
    )
    note = forms.CharField(
        label=_("Note for the delivery"),
        help_text=_("Optional. For example: leave it with the neighbours."),
        max_length=150,
        required=False,
    )

    @property
    def chosen_method(self) -> str | Promise:
        return dict(METHODS)[self.cleaned_data["method"]]


class ConfirmForm(CheckoutForm):
    """Has no fields: sending the form confirms the order."""

    title = _("Confirm")


class LanguageForm(forms.Form):
    language = forms.ChoiceField(
        label=_("Language"), choices=settings.LANGUAGES, widget=forms.RadioSelect
    )
