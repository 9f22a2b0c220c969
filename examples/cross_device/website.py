"""A website of one page, so that this example runs by itself. In your tests, this is your own server on localhost."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator

PAGE = b"""<!doctype html>
<meta charset="utf-8"><title>Example</title>
<button id="register">Register</button> <button id="sign-in">Sign in</button> <output></output>
<script>
  // A real website gets these options from its server, and sends the answer back there.
  const challenge = () => crypto.getRandomValues(new Uint8Array(32));
  const run = ceremony => async () => {
    const output = document.querySelector("output");
    try {
      output.textContent = await ceremony();
    } catch (error) {
      output.textContent = error.name;
    }
  };
  document.querySelector("#register").onclick = run(async () => {
    const user = {id: new Uint8Array([1]), name: "ada", displayName: "Ada"};
    const options = {challenge: challenge(), rp: {name: "Example"}, user, hints: ["hybrid"],
      pubKeyCredParams: [{type: "public-key", alg: -7}], authenticatorSelection: {residentKey: "required"}};
    await navigator.credentials.create({publicKey: options});
    return "registered";
  });
  document.querySelector("#sign-in").onclick = run(async () => {
    await navigator.credentials.get({publicKey: {challenge: challenge(), hints: ["hybrid"]}});
    return "signed in";
  });
</script>
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Run it while the context is open; gives its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
