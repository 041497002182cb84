"""The moments before which sessions ended at once: see Ending."""

from django_sessionkit.models import Ending


def note(ending: Ending) -> None:
    """Tell every store that there is a new epoch."""
