"""
From an IP address to "Berlin, Germany", if the site has a GeoIP2 database (Django's setting
GEOIP_PATH) and the package geoip2 (extra ``geoip``). Places are rough: providers move addresses.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from django.contrib.gis.geoip2 import GeoIP2


def place_of(address: str | None) -> str:
    """Return roughly where an address is, or "" if there is no database or it does not know."""
    path = getattr(settings, "GEOIP_PATH", None)
    if not path or not address or (database := _open(str(path))) is None:
        return ""
    from geoip2.errors import AddressNotFoundError

    try:
        found = database.city(address) if database.is_city else database.country(address)
    except AddressNotFoundError:
        return ""
    names = [found.get("city"), found["country_name"]]
    return ", ".join(str(name) for name in names if name)


def country_of(address: str | None) -> str:
    """Return the code of the country where an address is, or "", as place_of() does."""
    path = getattr(settings, "GEOIP_PATH", None)
    if not path or not address or (database := _open(str(path))) is None:
        return ""
    from geoip2.errors import AddressNotFoundError

    try:
        return database.country_code(address) or ""
    except AddressNotFoundError:
        return ""


@lru_cache(maxsize=1)
def _open(path: str) -> "GeoIP2 | None":
    from django.contrib.gis import geoip2

    if not geoip2.HAS_GEOIP2:
        return None
    try:
        return geoip2.GeoIP2(path)
    except geoip2.GeoIP2Exception:
        return None
