"""What every answer carries, and whose requests may change something."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.relying_party.website.refused import Reason, Refused

# Everything comes from this website; nothing is inline, so an injected script would not run.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "publickey-credentials-create=(self), publickey-credentials-get=(self), camera=(), "
    "geolocation=(), microphone=()",
}
_HARMLESS = ("GET", "HEAD")


class KnownHost:
    """Answers only under the names of `origins`; whoever comes by another one, such as 127.0.0.1, is sent to `home`.

    Without it, a name of somebody else that leads to this address would be an origin that reads our pages.
    """

    def __init__(self, app: ASGIApp, *, origins: frozenset[str], home: str) -> None:
        self._app = app
        self._hosts = frozenset(urlsplit(origin).netloc for origin in origins)
        self._home = home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and Headers(scope=scope).get("host") not in self._hosts:
            reading = scope["method"] in _HARMLESS
            await (RedirectResponse(self._home) if reading else PlainTextResponse("unknown host", 421))(
                scope, receive, send
            )
            return
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Adds the headers; nothing that a page shows is kept by a cache. `secure`: the site is on https."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if self._secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            await send(message)

        await self._app(scope, receive, send_with_headers)


class OwnOrigin:
    """Lets a request that is more than reading through only from one of `origins`, with JSON."""

    def __init__(self, app: ASGIApp, *, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _HARMLESS:
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            own = origin in self._origins and urlsplit(origin).netloc == headers.get("host")
            if not own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
                await _say(Refused(Reason.FOREIGN_REQUEST), scope, receive, send)
                return
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                await _say(Refused(Reason.BAD_REQUEST), scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _say(refusal: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse({"reason": refusal.reason.value, "sentence": str(refusal)}, refusal.status)
    await response(scope, receive, send)
