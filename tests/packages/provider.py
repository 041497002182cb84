"""A server of identities on this machine, for django-cas-ng and mozilla-django-oidc."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.packages.settings import OIDC_RP_CLIENT_ID, OIDC_RP_CLIENT_SECRET
from tests.servers import HOST, free_port

VALID = """
<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas"><cas:authenticationSuccess>
<cas:user>{name}</cas:user></cas:authenticationSuccess></cas:serviceResponse>
"""

LOGOUT = """
<samlp:LogoutRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol">
<samlp:SessionIndex>{ticket}</samlp:SessionIndex></samlp:LogoutRequest>
"""


class Provider(BaseHTTPRequestHandler):
    """Knows everybody. A ticket ends with a name; a code is a name and a nonce."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.endswith("/serviceValidate"):
            (ticket,) = parse_qs(url.query)["ticket"]
            self.answer("text/xml", VALID.format(name=ticket.rpartition("-")[2]))
        else:
            name = self.headers["Authorization"].removeprefix("Bearer ")
            self.answer("application/json", json.dumps({"email": f"{name}@example.org"}))

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name, _, nonce = parse_qs(sent)["code"][0].partition(":")
        token = id_token(sub=name, nonce=nonce, aud=OIDC_RP_CLIENT_ID, exp=time.time() + 600)
        self.answer("application/json", json.dumps({"id_token": token, "access_token": name}))

    def answer(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def id_token(**claims: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(map(in_base64, parts))
    digest = hmac.digest(OIDC_RP_CLIENT_SECRET.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{in_base64(digest)}"


def in_base64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@contextmanager
def serve() -> Iterator[str]:
    """Run the server, and yield its URL."""
    port = free_port()
    with ThreadingHTTPServer((HOST, port), Provider) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{port}"
        finally:
            server.shutdown()
            thread.join()
