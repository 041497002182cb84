from django.http import HttpRequest, HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import activate

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class ContentSecurityPolicyMiddleware(MiddlewareMixin):
    """Allow files of this site, and nothing else."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        response.headers["Content-Security-Policy"] = POLICY
        return response


class LanguageMiddleware(LocaleMiddleware):
    """
    Use the language that the visitor has chosen on the preferences page, or else the browser's.

    This middleware only reads the session. So it creates none for a visitor who has none.
    """

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        if language := request.session.get("language"):
            activate(language)
