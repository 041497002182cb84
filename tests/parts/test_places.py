import sys

import pytest
from django.utils import translation
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from django_sessionkit.models import UserSession
from django_sessionkit.visit import places
from django_sessionkit.visit.places import country_of, place_of

# Of the ranges that are set aside for documentation. The answers are made up.
GERMANY = {"en": "Germany", "de": "Deutschland", "pt-BR": "Alemanha", "zh-CN": "德国"}
BERLIN = {"country": {"iso_code": "DE", "names": GERMANY}}
BERLIN["city"] = {"names": {"en": "Berlin"}}
FRANCE = {"country": {"iso_code": "FR", "names": {"en": "France"}}}


@pytest.fixture(autouse=True)
def forget():
    places._open.cache_clear()
    yield
    places._open.cache_clear()


@pytest.fixture
def database(tmp_path, settings):
    def database(kind):
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind)
        writer.insert_network(IPSet(["192.0.2.0/24"]), BERLIN)
        writer.insert_network(IPSet(["198.51.100.0/24", "2001:db8::/32"]), FRANCE)
        writer.to_db_file(str(tmp_path / f"{kind}.mmdb"))
        settings.GEOIP_PATH = tmp_path

    return database


def test_an_address_has_a_place(database):
    database("GeoLite2-City")
    assert place_of("192.0.2.7") == "Berlin, Germany"
    assert place_of("198.51.100.1") == place_of("2001:db8::1") == "France"
    assert UserSession(ip="192.0.2.7").place == "Berlin, Germany"


def test_a_database_of_countries_will_do(database):
    database("GeoLite2-Country")
    assert place_of("192.0.2.7") == "Germany"


@pytest.mark.parametrize("kind", ["GeoLite2-City", "GeoLite2-Country"])
def test_an_address_is_in_a_country(database, kind):
    assert country_of("192.0.2.7") == ""
    database(kind)
    assert country_of("192.0.2.7") == "DE"
    assert country_of("198.51.100.1") == country_of("2001:db8::1") == "FR"
    for address in (None, "", "203.0.113.1", "127.0.0.1", "::1"):
        assert country_of(address) == ""


def test_a_database_of_old_addresses_does_not_know_where_new_ones_are(tmp_path, settings):
    writer = MMDBWriter(ip_version=4, database_type="GeoLite2-City")
    writer.insert_network(IPSet(["192.0.2.0/24"]), BERLIN)
    writer.to_db_file(str(tmp_path / "GeoLite2-City.mmdb"))
    settings.GEOIP_PATH = tmp_path
    assert place_of("192.0.2.7") == "Berlin, Germany"
    assert place_of("2001:db8::1") == country_of("2001:db8::1") == ""


def test_an_address_that_is_in_no_country_is_in_none(database, monkeypatch):
    monkeypatch.delitem(FRANCE["country"], "iso_code")
    database("GeoLite2-City")
    assert country_of("198.51.100.1") == ""


def test_an_unknown_address_has_no_place(database):
    database("GeoLite2-City")
    for address in (None, "", "203.0.113.1", "127.0.0.1", "::1"):
        assert place_of(address) == ""


@pytest.mark.parametrize(
    ("language", "place"),
    [
        ("de", "Berlin, Deutschland"),
        ("de-at", "Berlin, Deutschland"),
        ("pt", "Berlin, Alemanha"),
        ("pt-br", "Berlin, Alemanha"),
        ("zh-hans", "Berlin, 德国"),
        ("nl", "Berlin, Germany"),
        (None, "Berlin, Germany"),
    ],
)
def test_a_place_is_named_in_the_language_of_who_reads(database, language, place):
    database("GeoLite2-City")
    with translation.override(language):
        assert place_of("192.0.2.7") == place


def test_a_country_without_a_name_in_any_language_that_helps_has_no_place(database, monkeypatch):
    monkeypatch.setitem(FRANCE["country"], "names", {"ru": "Франция"})
    database("GeoLite2-City")
    assert place_of("198.51.100.1") == ""


def test_a_site_without_a_database_has_no_places(settings, tmp_path):
    assert place_of("192.0.2.7") == ""
    settings.GEOIP_PATH = tmp_path  # with nothing in it
    assert place_of("192.0.2.7") == country_of("192.0.2.7") == ""


def test_a_site_without_the_package_has_no_places(database, monkeypatch):
    database("GeoLite2-City")
    monkeypatch.setitem(sys.modules, "geoip2.database", None)  # so that importing it fails
    assert place_of("192.0.2.7") == ""


def test_a_file_that_is_no_database_of_places_has_no_places(database, settings, tmp_path):
    database("GeoLite2-ASN")
    settings.GEOIP_PATH = tmp_path / "GeoLite2-ASN.mmdb"
    assert place_of("192.0.2.7") == ""
    settings.GEOIP_PATH = tmp_path / "broken.mmdb"
    settings.GEOIP_PATH.write_bytes(b"nothing that anybody could read")
    assert place_of("192.0.2.7") == ""


def test_the_database_may_have_another_name(database, settings, tmp_path):
    database("DBIP-City-Lite")
    settings.GEOIP_CITY = "DBIP-City-Lite.mmdb"
    assert place_of("192.0.2.7") == "Berlin, Germany"
