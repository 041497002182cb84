"""The API of a site for apps: who is asking? In a sync view of REST framework, and in async."""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.module_loading import import_string
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.bearer_settings import SITE


class Who(APIView):  # type: ignore[misc]  # it has no types
    authentication_classes = (import_string(SITE.authentication),)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        return Response({"user": request.user.get_username()})


async def awho(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    return HttpResponse(user.get_username(), status=200 if user.is_authenticated else 401)


urlpatterns = [path("who/", Who.as_view()), path("awho/", awho)]
