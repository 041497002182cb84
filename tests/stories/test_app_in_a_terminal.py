"""The app of the example shop: its user signs in, is signed out on the page, and reads why."""

import subprocess
import sys
from contextlib import contextmanager
from threading import Timer

from example_project.management.commands.demo import PASSWORD
from tests import servers
from tests.own_browser import OwnBrowser
from tests.people import FIREFOX


class Terminal:
    """A terminal with the app: what is typed, and what it prints."""

    def __init__(self, process):
        self.process = process
        self.printed = []

    def type(self, *lines):
        for line in lines:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def until(self, text):
        """Return the line with this text, which the app is going to print."""
        for line in self.process.stdout:
            self.printed.append(line)
            if text in line:
                return line.strip()
        raise AssertionError((text, self.printed))


@contextmanager
def app(site):
    command = [sys.executable, "-m", "example_project.app", site]
    with subprocess.Popen(
        command,
        cwd=servers.PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        # Whoever waits for a line that never comes is told so.
        watch = Timer(3 * servers.PATIENCE, process.kill)
        watch.start()
        try:
            yield Terminal(process)
        finally:
            watch.cancel()
            process.stdin.close()
            process.kill()


def test_an_app_in_a_terminal_is_signed_out_on_the_page(example_database, log):
    with (
        servers.serve_example(example_database, log) as site,
        OwnBrowser(site, FIREFOX) as browser,
        app(site) as terminal,
    ):
        terminal.type("alice", PASSWORD)
        terminal.until("Signed in.")
        terminal.type("add sencha", "add nothing", "devices")
        terminal.until("1 x Sencha")
        terminal.until("14.50 €")
        terminal.until("1. Shop in a terminal on Linux, last active")
        browser.sign_in("alice")
        page = browser.get("/account/sessions/")
        assert "Shop in a terminal on Linux" in page.text
        assert "in an app" in page.text
        page = browser.get("/account/sessions/others/end/")
        browser.submit(page)
        terminal.type("cart")
        reason = terminal.until("You were signed out from another device")
        assert "Firefox on Linux" in reason
        assert terminal.process.wait(servers.PATIENCE) == 1
        shown = "".join(terminal.printed) + log.read_text()
        assert "sk_" not in shown
        assert PASSWORD not in "".join(terminal.printed)


def test_an_app_asks_for_the_password_again_and_for_room(example_database, log):
    with (
        servers.serve_example(example_database, log) as site,
        OwnBrowser(site, FIREFOX) as one,
        OwnBrowser(site, FIREFOX) as two,
        OwnBrowser(site, FIREFOX) as three,
        app(site) as terminal,
    ):
        for browser in (one, two, three):
            browser.sign_in("alice")
        terminal.type("alice", PASSWORD)
        terminal.until("You may be signed in 3 times.")
        terminal.type("1")
        terminal.until("Signed in.")
        terminal.type("devices", "end 2", "end 9", "quit")
        terminal.until("1. Shop in a terminal")
        terminal.until("Signed out.")
        terminal.until("There is no number 9.")
        terminal.until("You have signed out.")
