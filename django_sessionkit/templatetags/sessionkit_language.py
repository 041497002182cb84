"""The language of our texts, which need not be the language of the page that they are on."""

from django.conf import settings
from django.template import Library
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext, gettext_noop, override

register = Library()

# One of our texts. Where it is not translated, none of them is.
SAMPLE = gettext_noop("Sign out all other devices")


@register.simple_tag
def sessionkit_language() -> SafeString:
    """
    Return the attributes ``lang`` and ``dir`` for an element with our texts, or "" if these are in
    the language of the reader, which is that of the page (WCAG 2.2, 3.1.2).

        <div class="sessionkit"{% sessionkit_language %}>
    """
    language = language_of_texts()
    if _family(language) == _family(get_language() or ""):
        return SafeString("")
    direction = "rtl" if _family(language) in settings.LANGUAGES_BIDI else "ltr"
    return format_html(' lang="{}" dir="{}"', language, direction)


def language_of_texts() -> str:
    """Return the language that our texts are in, for the reader's language."""
    text = gettext(SAMPLE)
    if text == SAMPLE:
        return "en"
    # What has no translation into a language, Django gives in the language of the site.
    with override(settings.LANGUAGE_CODE):
        if text == gettext(SAMPLE):
            return settings.LANGUAGE_CODE
    return get_language() or "en"


def _family(language: str) -> str:
    return language.partition("-")[0]
