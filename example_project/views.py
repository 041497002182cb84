from decimal import Decimal
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import get_language, gettext, override
from django.views.decorators.http import require_POST
from django.views.generic import UpdateView

from django_sessionkit.decorators import recent_authentication_required
from django_sessionkit.mixins import RecentAuthenticationMixin

from .cart import Cart
from .forms import AddressForm, CheckoutForm, ConfirmForm, DeliveryForm, LanguageForm
from .products import PRODUCTS, Product


def home(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/home.html", {"products": PRODUCTS})


def product(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "shop/product.html", {"product": _product_or_404(slug)})


def cart(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/cart.html")


@require_POST
def add_to_cart(request: HttpRequest, slug: str) -> HttpResponse:
    product = _product_or_404(slug)
    Cart(request.session).add(product)
    messages.success(request, gettext("%(name)s is in your cart.") % {"name": product.name})
    return redirect("cart")


@require_POST
def remove_from_cart(request: HttpRequest, slug: str) -> HttpResponse:
    product = _product_or_404(slug)
    Cart(request.session).remove(product)
    messages.success(
        request, gettext("%(name)s is no longer in your cart.") % {"name": product.name}
    )
    return redirect("cart")


def _product_or_404(slug: str) -> Product:
    for product in PRODUCTS:
        if product.slug == slug:
            return product
    raise Http404


STEPS: dict[str, type[CheckoutForm]] = {
    "address": AddressForm,
    "delivery": DeliveryForm,
    "confirm": ConfirmForm,
}
LONGEST_TYPED = 200
# Euros. Such an order asks for the password again: somebody may have left their browser open.
DEAR = Decimal(50)


@login_required
def checkout(request: HttpRequest, step: str = "confirm") -> HttpResponse:
    """
    Show one step of the checkout, or redirect to an earlier step that is not complete yet.

    The session keeps what the visitor has typed. The form of a step decides whether that completes
    the step.
    """
    cart = Cart(request.session)
    if not cart.lines:
        messages.info(request, gettext("There is nothing to check out yet."))
        return redirect("cart")
    if step not in STEPS:
        raise Http404
    names = list(STEPS)
    position = names.index(step)
    forms = {name: form(request.session.get(_typed(name))) for name, form in STEPS.items()}
    for name in names[:position]:
        if not forms[name].is_valid():
            return redirect("checkout", name)
    if request.method == "POST":
        form = forms[step] = STEPS[step](request.POST)
        request.session[_typed(step)] = {
            name: request.POST.get(name, "")[:LONGEST_TYPED] for name in form.fields
        }
        if form.is_valid():
            if step == names[-1]:
                place_order = _place_order if cart.total < DEAR else _place_dear_order
                return place_order(request, forms["address"].cleaned_data["name"])
            return redirect("checkout", names[position + 1])
    return render(
        request, "shop/checkout.html", {"step": step, "form": forms[step], "forms": forms}
    )


def _place_order(request: HttpRequest, name: str) -> HttpResponse:
    cart = Cart(request.session)
    request.session["order"] = {"name": name, "count": cart.count, "total": str(cart.total)}
    cart.clear()
    for step in STEPS:
        request.session.pop(_typed(step), None)
    return redirect("thanks")


_place_dear_order = recent_authentication_required(max_age=60)(_place_order)


def _typed(step: str) -> str:
    return f"checkout:{step}"


@login_required
def thanks(request: HttpRequest) -> HttpResponse:
    if "order" not in request.session:
        return redirect("home")
    return render(request, "shop/thanks.html", {"order": request.session["order"]})


def preferences(request: HttpRequest) -> HttpResponse:
    """Keep the language in the session. The browser keeps the theme, see theme.js."""
    form = LanguageForm(request.POST or None, initial={"language": get_language()})
    if form.is_valid():
        request.session["language"] = form.cleaned_data["language"]
        with override(form.cleaned_data["language"]):
            messages.success(request, gettext("Your language is saved."))
        return redirect("preferences")
    return render(request, "shop/preferences.html", {"form": form})


@login_required
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/account.html")


class ChangePassword(PasswordChangeView):
    template_name = "shop/password_change.html"
    success_url = reverse_lazy("account")

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        messages.success(
            self.request, gettext("Your password is changed. Other devices are signed out.")
        )
        return super().form_valid(form)


class ChangeEmail(RecentAuthenticationMixin, UpdateView):  # type: ignore[type-arg]
    """Asks for a recent proof of identity: whoever has the address can reset the password."""

    model = User
    fields = ["email"]
    template_name = "shop/email_change.html"
    success_url = reverse_lazy("account")

    def get_object(self, queryset: object = None) -> User:
        return cast("User", self.request.user)

    def form_valid(self, form: "ModelForm[User]") -> HttpResponse:
        messages.success(self.request, gettext("Your e-mail address is changed."))
        return super().form_valid(form)
