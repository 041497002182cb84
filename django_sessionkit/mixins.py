from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.generic import View

from django_sessionkit.proofs import aask_for_proof, ask_for_proof


class RecentAuthenticationMixin(View):
    """
    ``recent_authentication_required`` for class-based views. Put this mixin before the view class,
    and after the mixins that decide who may see the view.
    """

    recent_max_age: int | None = None  # seconds; None: Policy.recent decides
    # Whether a form that was sent is kept while its user is asked, to be sent again. A page that
    # asks by itself before it does something need not be asked about twice.
    keeps_form = True

    def needs_recent_authentication(self) -> bool:
        """
        Tell whether this request needs a recent proof of identity. Override this method if only
        some requests do.
        """
        return True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not self.needs_recent_authentication():
            return super().dispatch(request, *args, **kwargs)
        if self.view_is_async:
            return self._adispatch(request, *args, **kwargs)
        asked = ask_for_proof(request, self.recent_max_age, self.keeps_form)
        return asked or super().dispatch(request, *args, **kwargs)

    async def _adispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        asked: HttpResponseBase | None = await aask_for_proof(
            request, self.recent_max_age, self.keeps_form
        )
        dispatch: Any = super().dispatch
        return asked or await dispatch(request, *args, **kwargs)
