"""
A rolling deploy, as docs/moving.md has it: processes of two generations serve fifty clients under
load, one step after the other. Each client has several requests under way at once, as browsers do.
Nobody is signed out, nothing that was bought is lost, and nobody sees less than there was before.
"""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

import httpx
import pytest

from tests import servers
from tests.adoption.serve_site import VISITORS
from tests.moving import DATABASE, DB, HERE, REDIS, RETURNING
from tests.own_browser import NO_TLS
from tests.projects import run_python

CLIENTS = VISITORS[:50]
LOOK = "look"
# Requests that are answered before the next step, so that it comes in the middle.
STEP = 2 * len(CLIENTS)


class Balancer:
    """Sends each request to the next of the processes that are up, as a proxy does."""

    def __init__(self, *upstreams):
        self.upstreams, self.is_over = upstreams, False
        self.turn, self.answered, self.step = count(), 0, threading.Condition()
        self.under_way = Counter()

    @contextmanager
    def upstream(self):
        """The URL of a process, which is not stopped before the request is answered."""
        with self.step:
            url = self.upstreams[next(self.turn) % len(self.upstreams)]
            self.under_way[url] += 1
        try:
            yield url
        except BaseException:
            self.is_over = True
            raise
        finally:
            with self.step:
                self.under_way[url] -= 1
                self.answered += 1
                self.step.notify_all()

    def deploy(self, *upstreams):
        """
        Wait until enough was answered by the processes that are up, replace them, and wait for what
        the ones that go still have under way.
        """
        with self.step:
            until = self.answered + STEP
            self.wait(lambda: self.answered >= until)
            gone = {*self.upstreams} - {*upstreams}
            self.upstreams = upstreams
            self.wait(lambda: not any(self.under_way[url] for url in gone))

    def wait(self, condition):
        assert self.step.wait_for(lambda: condition() or self.is_over, 10 * servers.PATIENCE)


class Shopper:
    """A client who fills carts, and looks at them."""

    def __init__(self, balancer, client, name):
        self.balancer, self.client, self.name = balancer, client, name
        self.bought = {}

    def actions(self, windows):
        """What the client does at the same time: in each window, looks, or fills another cart."""
        return [self.look if each == LOOK else partial(self.buy, each) for each in windows]

    def look(self):
        """All that was bought before is there."""
        before = dict(self.bought)
        carts = self.answer("GET", "/cart/")
        for cart, things in before.items():
            assert carts.get(cart, [])[: len(things)] == things

    def buy(self, cart):
        """Put one more thing into a cart. All that was in there stays."""
        bought = self.bought.get(cart, [])
        thing = f"thing {len(bought)}"
        carts = self.answer("POST", "/buy/", data={"cart": cart, "thing": thing})
        assert carts[cart] == [*bought, thing]
        self.bought[cart] = carts[cart]

    def answer(self, method, path, **kwargs):
        with self.balancer.upstream() as url:
            answer = self.client.request(method, f"{url}{path}", **kwargs)
            assert answer.status_code == 200, answer.text
            carts = answer.json()
            assert carts.pop("user") == self.name
            return carts


def again_and_again(balancer, action):
    """Do something until all deploys are made."""
    try:
        while not balancer.is_over:
            action()
    finally:
        balancer.is_over = True


def under_load(balancer, deploys, windows):
    """Make the deploys while all clients shop."""
    with ExitStack() as stack, ThreadPoolExecutor(len(CLIENTS) * len(windows)) as pool:
        clients = {}
        for name in CLIENTS:
            client = httpx.Client(timeout=servers.PATIENCE, verify=NO_TLS)
            clients[name] = stack.enter_context(client)
            with balancer.upstream() as url:
                answer = clients[name].post(f"{url}/sign_in/", data={"name": name})
            assert answer.text == "signed in"
        running = [
            pool.submit(again_and_again, balancer, action)
            for name, client in clients.items()
            for action in Shopper(balancer, client, name).actions(windows)
        ]
        try:
            for upstreams in deploys:
                balancer.deploy(*upstreams)
            balancer.deploy(*deploys[-1])
        finally:
            balancer.is_over = True
        for thread in running:
            thread.result(servers.PATIENCE)
        # Once more, so that all have moved to where the deploys have led.
        for name, client in clients.items():
            Shopper(balancer, client, name).look()


def test_moving_in_and_out_under_load(site):
    with (
        site(engine=DATABASE, is_new="1") as (old, _),
        site(engine=DATABASE, adopt_from=HERE, middleware=RETURNING) as (ready, _),
        site(engine=HERE, adopt_from=DATABASE) as (new, env),
    ):
        there = [(old, ready), (ready, ready), (ready, new), (new, new)]
        back = [(new, ready), (ready, ready)]
        under_load(Balancer(old, old), [*there, *back], ["cart1", LOOK])
        said = run_python(servers.PROJECT, "-m", "django", "adoptsessions", env=env)
        assert "Moved 50 sessions." in said


@pytest.mark.redis
def test_between_our_engines_under_load(site):
    """With two carts, whose changes are merged."""
    with (
        site(engine=DB, adopt_from=REDIS, is_new="1") as (on_database, _),
        site(engine=REDIS, adopt_from=DB) as (on_redis, _),
    ):
        there = [(on_database, on_redis), (on_redis, on_redis)]
        back = [(on_redis, on_database), (on_database, on_database)]
        balancer = Balancer(on_database, on_database)
        under_load(balancer, [*there, *back], ["cart1", "cart2"])
