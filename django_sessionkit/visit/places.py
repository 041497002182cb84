"""
From an IP address to "Berlin, Germany", if the site has a GeoIP2 database (Django's setting
GEOIP_PATH) and the package geoip2 (extra ``geoip``). Places are rough: providers move addresses.

Django's own GeoIP2 class knows them in English only. The database knows them in more languages.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.translation import get_language

if TYPE_CHECKING:
    from geoip2.database import Reader
    from geoip2.models import Country


def place_of(address: str | None) -> str:
    """
    Return roughly where an address is, in the active language or in English. Return "" if there is
    no database, or if it does not know.
    """
    found = _found(address)
    if found is None:
        return ""
    language = (get_language() or "en").lower()
    known = [getattr(found, "city", None), found.country]
    names = [_in_language(each.names, language) for each in known if each]
    return ", ".join(name for name in names if name)


def country_of(address: str | None) -> str:
    """Return the code of the country where an address is, or "", as place_of() does."""
    found = _found(address)
    return (found.country.iso_code or "") if found else ""


def _found(address: str | None) -> "Country | None":
    """Return what the database has of an address. Of a database of cities, that is a City."""
    path = getattr(settings, "GEOIP_PATH", None)
    if not path or not address or (database := _open(str(path))) is None:
        return None
    from geoip2.errors import AddressNotFoundError

    is_of_cities = "City" in database.metadata().database_type
    try:
        return database.city(address) if is_of_cities else database.country(address)
    except (AddressNotFoundError, ValueError):  # a database of IPv4 is asked for IPv6
        return None


def _in_language(names: Mapping[str, str], language: str) -> str:
    """Return a name in a language, in a variety of it, or in English; or else ""."""
    spoken = language.partition("-")[0]
    known = {name.lower(): names[name] for name in names}
    varieties = [name for name in known if name.partition("-")[0] == spoken]
    return next((known[name] for name in (language, *varieties, "en") if name in known), "")


@lru_cache(maxsize=1)
def _open(path: str) -> "Reader | None":
    """Return the database that Django's GeoIP2 would open, or None if it is not there."""
    try:
        from geoip2.database import Reader
    except ImportError:
        return None
    from maxminddb import InvalidDatabaseError

    names = [
        getattr(settings, "GEOIP_CITY", "GeoLite2-City.mmdb"),
        getattr(settings, "GEOIP_COUNTRY", "GeoLite2-Country.mmdb"),
    ]
    file = next(filter(Path.is_file, (Path(path), *(Path(path, name) for name in names))), None)
    try:
        database = Reader(file) if file else None
    except InvalidDatabaseError:
        return None
    is_of_places = database and re.search("City|Country", database.metadata().database_type)
    return database if is_of_places else None
