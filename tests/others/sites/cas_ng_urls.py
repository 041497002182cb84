from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from django_cas_ng import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("login/", views.LoginView.as_view(), name="cas_ng_login"),
    path("logout/", views.LogoutView.as_view(), name="cas_ng_logout"),
    path("callback/", views.CallbackView.as_view(), name="cas_ng_proxy_callback"),
    path("", lambda request: HttpResponse(), name="home"),
]
