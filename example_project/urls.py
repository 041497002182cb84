from django.apps import apps
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("products/<slug:slug>/", views.product, name="product"),
    path("cart/", views.cart, name="cart"),
    path("cart/<slug:slug>/add/", views.add_to_cart, name="cart_add"),
    path("cart/<slug:slug>/remove/", views.remove_from_cart, name="cart_remove"),
    path("checkout/", views.checkout, name="checkout"),
    path("checkout/thanks/", views.thanks, name="thanks"),
    path("checkout/<str:step>/", views.checkout, name="checkout"),
    path("preferences/", views.preferences, name="preferences"),
    path("account/", views.account, name="account"),
    path("account/email/", views.ChangeEmail.as_view(), name="email_change"),
    path("account/password/", views.ChangePassword.as_view(), name="password_change"),
    path("account/sign-in/", LoginView.as_view(template_name="shop/sign_in.html"), name="login"),
    path("account/sign-out/", LogoutView.as_view(), name="logout"),
    path("account/sessions/", include("django_sessionkit.urls")),  # django-sessionkit, 4 of 4
    path("admin/", admin.site.urls),
]

if apps.is_installed("drf_spectacular"):
    from drf_spectacular.views import SpectacularAPIView

    from .api import CartView

    urlpatterns += [
        path("api/cart/", CartView.as_view(), name="api_cart"),
        path("api/", include("django_sessionkit.api.urls")),
        path("api/", include("django_sessionkit.api.sign_in_urls")),
        path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    ]
