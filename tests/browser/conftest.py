"""One Chromium for all tests of this folder, a website for it, and relays that are there to fail."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.browser import Browser, BrowserOptions, Page, Phone
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.browser.ceremonies import Ceremonies
from tests.browser.relying_party import RelyingParty

HASHED, REFUSING, FOREIGN_CA = 266, 267, 268
"""Service ids: one with a hashed name, one where nobody listens for the laptop, one with a stranger's certificate."""

SHOP = "shop.test"

_PAGE = b"<!doctype html><title>A website</title><meta name='color-scheme' content='light dark'><h1>A website</h1>"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _serving(server: http.server.HTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def origin() -> Iterator[str]:
    """Origin of a website with one empty page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server, _serving(server):
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="session")
def shop() -> Iterator[http.server.HTTPServer]:
    """The same website under a name of its own, which the browser must be told before the website has its TLS."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        yield server


@pytest.fixture
def shop_origin(shop: http.server.HTTPServer, hybrid_browser: Browser) -> Iterator[str]:
    plain = shop.socket
    shop.socket = hybrid_browser.tls(SHOP).wrap_socket(plain.dup(), server_side=True)
    with shop.socket, _serving(shop):
        yield f"https://{SHOP}"
    shop.socket = plain


@contextlib.contextmanager
def _tls_of_a_stranger() -> Iterator[int]:
    context = ThrowawayCA.create().server_context(tunnel_domain(FOREIGN_CA))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the laptop hangs up, or the test is over
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(scope="session")
def hybrid_browser_options(shop: http.server.HTTPServer) -> Iterator[BrowserOptions]:
    with _tls_of_a_stranger() as stranger, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listening
        yield BrowserOptions(
            service_ids=(0, 1, HASHED, REFUSING, FOREIGN_CA),
            hosts={
                f"{SHOP}:443": f"127.0.0.1:{shop.server_port}",
                f"{tunnel_domain(REFUSING)}:443": f"127.0.0.1:{nobody.getsockname()[1]}",
                f"{tunnel_domain(FOREIGN_CA)}:443": f"127.0.0.1:{stranger}",
            },
        )


@pytest.fixture
def browser(hybrid_browser: Browser) -> Browser:
    return hybrid_browser


@pytest.fixture
def page(hybrid_page: Page, origin: str) -> Page:
    hybrid_page.goto(origin)
    return hybrid_page


@pytest.fixture
def phone(hybrid_phone: Phone) -> Phone:
    return hybrid_phone


@pytest.fixture
def rp(origin: str) -> RelyingParty:
    return RelyingParty(origin)


@pytest.fixture
def ceremonies(page: Page, phone: Phone, rp: RelyingParty) -> Ceremonies:
    """Create and get on this page, with this phone, at this website."""
    return Ceremonies(page, phone, rp)
