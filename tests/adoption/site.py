"""A shop in which one can sign in by name."""

from django.contrib import admin
from django.contrib.auth import get_user_model, login
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def sign_in(request: HttpRequest) -> HttpResponse:
    """Signs in a visitor who has put something into the cart before."""
    request.session["cart"] = ["teapot"]
    login(request, get_user_model().objects.get(username=request.POST["name"]))
    return HttpResponse("signed in")


@csrf_exempt
def buy(request: HttpRequest) -> HttpResponse:
    """Puts something into a cart."""
    name, thing = request.POST["cart"], request.POST["thing"]
    request.session[name] = [*request.session.get(name, []), thing]
    return cart(request)


def cart(request: HttpRequest) -> JsonResponse:
    carts = {name: value for name, value in request.session.items() if name.startswith("cart")}
    return JsonResponse({"user": str(request.user), **carts})


# Not those of tests/urls.py, which know our engines alone.
urlpatterns = [
    path("", lambda request: HttpResponse("home"), name="home"),
    path("login/", LoginView.as_view(template_name="admin/login.html"), name="login"),
    path("logout/", LogoutView.as_view(next_page="home"), name="logout"),
    path("admin/", admin.site.urls),
    path("account/sessions/", include("django_sessionkit.urls")),
    path("sign_in/", sign_in),
    path("buy/", buy),
    path("cart/", cart),
]
