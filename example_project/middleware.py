from django.http import HttpRequest, HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import activate

SHOP_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# The search fields of Django's admin fetch their suggestions.
ADMIN_POLICY = f"{SHOP_POLICY}; connect-src 'self'"


class ContentSecurityPolicyMiddleware(MiddlewareMixin):
    """Allow our own files and nothing else."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        in_admin = request.resolver_match and request.resolver_match.app_name == "admin"
        response.headers["Content-Security-Policy"] = ADMIN_POLICY if in_admin else SHOP_POLICY
        return response


class LanguageMiddleware(LocaleMiddleware):
    """
    Speak the language that the visitor has chosen on the preferences page, else the browser's.

    This only reads the session: a visitor who has none gets none.
    """

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        if language := request.session.get("language"):
            activate(language)
