"""
An app of the shop, in a terminal. It signs in with the JSON API of django-sessionkit, keeps the
session key, and sends the key with every request:

    python -m example_project.app http://127.0.0.1:8000

The server needs django-sessionkit[api], and this program needs httpx.
"""

import getpass
import platform
import sys
from collections.abc import Callable
from typing import Any

import httpx

COMMANDS = "cart, add PRODUCT, devices, end NUMBER, quit"


class SignedOut(Exception):  # noqa: N818 (it is no error)
    """The session has ended. The text says why."""


class App:
    def __init__(self, site: str) -> None:
        self.client = httpx.Client(base_url=f"{site}/api/", timeout=60)
        # A real app keeps the key in the keychain of its system, and the name of the device beside.
        self.key = ""

    def ask(self, method: str, path: str, **data: Any) -> Any:
        """
        Send a request with the session key, and return the JSON of the answer. Where the site wants
        to know first that it is still the same person, ask for the password, and send it again.
        """
        answer = self.send(method, path, data)
        if answer.status_code == 401 and self.code(answer) == "reauthentication_required":
            self.prove()
            answer = self.send(method, path, data)
        if answer.status_code == 401 and self.code(answer) == "locked":
            (self.make_room if answer.json()["reason"] == "limit" else self.prove)()
            answer = self.send(method, path, data)
        if answer.status_code == 401:
            raise SignedOut(self.why())
        if answer.is_error:
            say(answer.json().get("detail", answer.reason_phrase))
            return None
        return answer.json() if answer.content else None

    def send(self, method: str, path: str, data: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        answer = self.client.request(method, path, json=data or None, headers=headers)
        # From time to time the session gets another key. The old one works for a while only.
        self.key = answer.headers.get("Session-Key", self.key)
        return answer

    def code(self, answer: httpx.Response) -> str:
        """Return what went wrong, as far as the answer says it in a way for programs."""
        return str(answer.json().get("code") or answer.json().get("reason") or "")

    def why(self) -> str:
        """Return why nobody is signed in any more, for people to read."""
        return str(self.send("GET", "v1/sessions/current/", {}).json()["detail"])

    def sign_in(self) -> bool:
        what = {"name": "Shop in a terminal", "version": "1", "system": platform.system()}
        answer = self.send(
            "POST",
            "v1/sign-in/",
            {"username": read("User name"), "password": read("Password", secret=True), "app": what},
        )
        if answer.is_error:
            say(answer.json()["detail"])
            return False
        self.key = answer.json()["key"]
        if answer.json()["locked"]:
            self.make_room()
        return True

    def prove(self) -> None:
        answer = self.send(
            "POST", "v1/reauthenticate/", {"password": read("Password again", secret=True)}
        )
        if answer.is_error:
            say(answer.json()["detail"])

    def make_room(self) -> None:
        """Have the user choose which other session to end."""
        page = self.send("GET", "v1/limit/", {}).json()
        say(f"You may be signed in {page['limit']} times. Which one is to end?")
        show(page["results"])
        chosen = {str(number): each["id"] for number, each in enumerate(page["results"], 1)}
        while (number := read("Number")) not in chosen:
            say(f"There is no number {number}.")
        self.send("POST", "v1/limit/", {"sessions": [chosen[number]]})

    # The commands.

    def cart(self) -> None:
        self.show_cart(self.ask("GET", "cart/"))

    def add(self, product: str) -> None:
        self.show_cart(self.ask("POST", "cart/", product=product))

    def show_cart(self, cart: Any) -> None:
        if cart:
            for line in cart["lines"]:
                say(f"{line['quantity']} x {line['name']}  {line['price']} €")
            say(f"{cart['total']} €")

    def devices(self) -> None:
        show(self.ask("GET", "v1/sessions/")["results"])

    def end(self, number: str) -> None:
        sessions = self.ask("GET", "v1/sessions/")["results"]
        if not number.isdecimal() or not 1 <= int(number) <= len(sessions):
            say(f"There is no number {number}.")
            return
        self.ask("DELETE", f"v1/sessions/{sessions[int(number) - 1]['id']}/")
        say("Signed out.")

    def quit(self) -> None:
        self.ask("DELETE", "v1/sessions/current/")
        raise SignedOut("You have signed out.")


def show(sessions: list[dict[str, Any]]) -> None:
    for number, session in enumerate(sessions, 1):
        here = ", this one" if session["is_current"] else ""
        say(f"{number}. {session['name']}, last active {session['last_active']}{here}")


def read(what: str, secret: bool = False) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{what}: ") if secret else input(f"{what}: ")
    return sys.stdin.readline().strip()


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main(site: str) -> int:
    app = App(site.rstrip("/"))
    if not app.sign_in():
        return 1
    say(f"Signed in. What you can type: {COMMANDS}")
    try:
        while words := read(">").split():
            command: Callable[..., None] | None = None
            if words[0] in {line.split()[0] for line in COMMANDS.split(", ")}:
                command = getattr(app, words[0])
            try:
                command(*words[1:]) if command else say(COMMANDS)
            except TypeError:
                say(COMMANDS)
    except SignedOut as end:
        say(str(end))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["http://127.0.0.1:8000"]))
