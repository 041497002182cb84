"""
A rolling deploy, as docs/moving.md has it: processes of two generations serve fifty clients under
load, one step after the other. Nobody is signed out, and nothing that was bought is lost.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import httpx
import pytest

from tests import servers
from tests.adoption.serve_site import VISITORS
from tests.moving import DATABASE, DB, HERE, REDIS, RETURNING
from tests.projects import run_python

CLIENTS = VISITORS[:50]
PATIENCE = 60  # seconds, on a busy machine
# Requests that are answered before the next step, so that it comes in the middle.
STEP = 3 * len(CLIENTS)


class Balancer:
    """Sends each request to the next of the processes that are up, as a proxy does."""

    def __init__(self, *upstreams):
        self.turn, self.answered, self.step = count(), 0, threading.Condition()
        self.upstreams, self.is_over = upstreams, False

    def url(self):
        upstreams = self.upstreams
        return upstreams[next(self.turn) % len(upstreams)]

    def note(self):
        with self.step:
            self.answered += 1
            self.step.notify_all()

    def deploy(self, *upstreams):
        """Wait until enough was answered by the processes that are up, and replace them."""
        with self.step:
            until = self.answered + STEP
            assert self.step.wait_for(lambda: self.answered >= until or self.is_over, 10 * PATIENCE)
        self.upstreams = upstreams


def shop(balancer, client, name, cart):
    """Put one thing after the other into a cart. All of them are there each time."""
    bought = []
    while not balancer.is_over:
        bought.append(f"thing {len(bought)}")
        data = {"cart": cart, "thing": bought[-1]}
        try:
            answer = client.post(f"{balancer.url()}/buy/", data=data)
            assert (answer.status_code, answer.text[:1]) == (200, "{"), answer.text
            assert answer.json()["user"] == name
            assert answer.json()[cart] == bought
        except BaseException:
            balancer.is_over = True
            raise
        finally:
            balancer.note()
    return len(bought)


def under_load(balancer, deploys, carts):
    """Make the deploys while all clients shop, with one request at a time for each of the carts."""
    with ExitStack() as stack, ThreadPoolExecutor(len(CLIENTS) * len(carts)) as pool:
        clients = {}
        for name in CLIENTS:
            clients[name] = stack.enter_context(httpx.Client(timeout=PATIENCE))
            answer = clients[name].post(f"{balancer.url()}/sign_in/", data={"name": name})
            assert answer.text == "signed in"
        running = [
            pool.submit(shop, balancer, client, name, cart)
            for name, client in clients.items()
            for cart in carts
        ]
        try:
            for upstreams in deploys:
                balancer.deploy(*upstreams)
            balancer.deploy(*deploys[-1])
        finally:
            balancer.is_over = True
        assert all(thread.result(PATIENCE) > 0 for thread in running)
        # Once more, so that all have moved to where the deploys have led.
        for name, client in clients.items():
            assert client.get(f"{balancer.url()}/cart/").json()["user"] == name


def test_moving_in_and_out_under_load(site):
    with (
        site(engine=DATABASE, is_new="1") as (old, _),
        site(engine=DATABASE, adopt_from=HERE, middleware=RETURNING) as (ready, _),
        site(engine=HERE, adopt_from=DATABASE) as (new, env),
    ):
        there = [(old, ready), (ready, ready), (ready, new), (new, new)]
        back = [(new, ready), (ready, ready)]
        under_load(Balancer(old, old), [*there, *back], ["cart1"])
        said = run_python(servers.PROJECT, "-m", "django", "adoptsessions", env=env)
        assert "Moved 50 sessions." in said


@pytest.mark.redis
def test_between_our_engines_under_load(site):
    """With two requests at a time for each client, whose changes are merged."""
    with (
        site(engine=DB, adopt_from=REDIS, is_new="1") as (on_database, _),
        site(engine=REDIS, adopt_from=DB) as (on_redis, _),
    ):
        there = [(on_database, on_redis), (on_redis, on_redis)]
        back = [(on_redis, on_database), (on_database, on_database)]
        balancer = Balancer(on_database, on_database)
        under_load(balancer, [*there, *back], ["cart1", "cart2"])
