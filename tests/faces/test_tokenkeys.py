"""What ``manage.py tokenkeys`` does, and what it says."""

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_sessionkit.models import SigningKey
from django_sessionkit.signing_keys import LEEWAY, LONGEST_AGE, WAIT, signing_key

pytestmark = [pytest.mark.django_db, pytest.mark.once]

NONE = "No key signs tokens here. Make one: manage.py tokenkeys --make.\n"


def run(*arguments):
    out = StringIO()
    call_command("tokenkeys", *arguments, stdout=out)
    return out.getvalue()


def states(said):
    """Return what is said of each key, without its id and its algorithm."""
    lines = re.findall(r"^([0-9a-f]{16})  (ES256|EdDSA|HS256)  (.+)$", said, re.MULTILINE)
    assert len(lines) == SigningKey.objects.count()
    return [state for _kid, _algorithm, state in lines]


def test_site_without_keys_is_told_how_to_make_one():
    assert run() == NONE
    assert not SigningKey.objects.exists()


def test_first_key_is_made_once():
    assert states(run("--make")) == ["signs"]
    said = run("--make")
    assert said.startswith("There is a key already, so none was made.\n")
    assert states(said) == ["signs"]


@pytest.mark.parametrize("use_tz", [True, False])
def test_life_of_two_keys(clock, settings, use_tz):
    settings.USE_TZ = use_tz
    run("--make")
    assert states(run("--rotate")) == [
        "signs, and verifies until 2040-03-01 19:07:10 UTC",
        "signs from 2040-03-01 18:07:00 UTC",
    ]
    said = run("--rotate")
    assert said.startswith("The next key waits already, so none was made.\n")
    assert len(states(said)) == 2
    clock.move(seconds=WAIT)
    assert states(run()) == ["verifies until 2040-03-01 19:07:10 UTC", "signs"]
    clock.move(seconds=LONGEST_AGE + LEEWAY)
    assert states(run()) == ["verified until 2040-03-01 19:07:10 UTC", "signs"]


def test_algorithm_is_that_of_the_settings(settings):
    settings.SESSIONKIT_TOKEN_ALGORITHM = "HS256"
    assert "  HS256  signs" in run("--make")


def test_stolen_key_is_retired_and_another_signs(clock):
    kid = run("--make").split()[0]
    assert states(run("--retire", kid)) == ["verified until 2040-03-01 18:00:00 UTC", "signs"]
    with pytest.raises(CommandError, match=f"No key '{kid}' verifies tokens."):
        run("--retire", kid)


LOST = "does not open with this SECRET_KEY, nor with SECRET_KEY_FALLBACKS"


def test_key_that_does_not_open_any_more_is_in_nobodys_way(settings, clock):
    kid = run("--make").split()[0]
    settings.SECRET_KEY = "another one"
    said = run()
    assert states(said) == [LOST]
    assert said.endswith(NONE)
    assert states(run("--make")) == [LOST, "signs"]
    assert states(run("--rotate"))[1:] == [
        "signs, and verifies until 2040-03-01 19:07:10 UTC",
        "signs from 2040-03-01 18:07:00 UTC",
    ]
    assert signing_key().kid != kid


def test_next_key_takes_the_place_of_one_that_does_not_open(settings):
    run("--make")
    settings.SECRET_KEY = "another one"
    assert states(run("--rotate")) == [LOST, "signs"]


def test_key_that_does_not_open_does_not_follow_a_stolen_one(settings, clock):
    run("--make")
    settings.SECRET_KEY = "another one"
    kid = run("--make").split()[-3]
    assert states(run("--retire", kid)) == [LOST, "verified until 2040-03-01 18:00:00 UTC", "signs"]


@pytest.mark.parametrize("kid", ["nonsense", ""])
def test_key_that_is_not_there_is_not_retired(kid):
    run("--make")
    with pytest.raises(CommandError, match="verifies tokens"):
        run("--retire", kid)
    assert states(run()) == ["signs"]


def test_one_thing_at_a_time():
    with pytest.raises(CommandError, match="not allowed with"):
        run("--make", "--rotate")


def test_no_private_key_is_shown():
    said = run("--make")
    private = bytes(SigningKey.objects.get().private)
    assert private.hex() not in said
    assert len(said) < 60
