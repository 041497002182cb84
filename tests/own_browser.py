"""A browser and an app that speak HTTP, for stories with a server of their own."""

import re
import ssl

import httpx

from django_sessionkit.backends.sealing import digest_of
from example_project.management.commands.demo import PASSWORD
from tests import servers
from tests.browsers import PAGE

# Nothing here is encrypted. By default, each client reads all certificates: that takes longer than
# a request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class OwnBrowser(httpx.Client):
    """A browser, as far as stories need one. It remembers all session keys that it is given."""

    keys: set[str] = set()

    def __init__(self, site, user_agent):
        headers = PAGE | {"user-agent": user_agent}
        hooks = {"response": [self.look]}
        super().__init__(
            base_url=site,
            headers=headers,
            follow_redirects=True,
            event_hooks=hooks,
            timeout=servers.PATIENCE,
            verify=NO_TLS,
        )

    def look(self, response):
        """Check that an answer shows no session key or digest outside of Set-Cookie."""
        response.read()
        if key := response.cookies.get("sessionid"):
            assert "no-store" in response.headers["Cache-Control"]
            self.keys.add(key)
        seen = "\n".join(
            [str(response.url), response.text]
            + [value for name, value in response.headers.items() if name != "set-cookie"]
        )
        assert not [key for key in self.keys if key in seen or digest_of(key) in seen]

    def submit(self, page, **fields):
        """Fill in the form with a token on a page, and send it to the URL of that page."""
        return self.send_form(page, str(page.url), **fields)

    def send_form(self, page, to, **fields):
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
        referer = {"Referer": str(page.url)}
        data = {"csrfmiddlewaretoken": token, **fields}
        return self.post(to, data=data, headers=referer)

    def sign_in(self, name):
        page = self.get("/account/sign-in/")
        return self.submit(page, username=name, password=PASSWORD)

    def follow(self, page, text):
        """Follow the link with this text."""
        links = re.findall(r'<a\b[^>]*?href="([^"]+)"[^>]*>(.*?)</a>', page.text, re.DOTALL)
        (url,) = [url for url, label in links if text in re.sub(r"<.*?>", "", label)]
        return self.get(url)


class OwnApp(httpx.Client):
    """An app of Alice. It remembers all session keys that it is given, and sends the last one."""

    def __init__(self, site):
        super().__init__(
            base_url=site,
            event_hooks={"response": [self.look]},
            timeout=servers.PATIENCE,
            verify=NO_TLS,
        )
        self.keys: list[str] = []

    def look(self, response):
        """Check that an answer has a key in its own header, and nowhere else, and no cookie."""
        response.read()
        assert not response.cookies
        assert "Cookie" not in response.headers.get("Vary", "")
        if key := response.headers.get("Session-Key"):
            assert "no-store" in response.headers["Cache-Control"]
            self.carry(key)
        seen = "\n".join(
            [str(response.url), response.text]
            + [value for name, value in response.headers.items() if name != "session-key"]
        )
        keys = [key.removeprefix("sk_") for key in self.keys]
        assert not [key for key in keys if key in seen or digest_of(key) in seen]

    def carry(self, key):
        self.keys.append(key)
        self.headers["Authorization"] = f"Bearer {key}"

    def sign_in(self, **said):
        answer = self.post(
            "/app/sign-in/", data={"username": "alice", "password": PASSWORD, **said}
        )
        assert "no-store" in answer.headers["Cache-Control"]
        self.carry(answer.json()["key"])
