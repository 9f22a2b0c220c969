"""The panel's own requests. Whoever may send them commands the phone: only for a server on this machine."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.relying_party.backstage.stage import KINDS, LaptopFailed, Stage, read_picture
from examples.relying_party.backstage.story import in_words
from hybrid.errors import HybridError

HERE = Path(__file__).parent
_MAX_BODY = 12 * 1024 * 1024  # a screenshot


class Panel:
    """Routes around a stage. `page` renders a template: the panel can have a window of its own."""

    def __init__(self, stage: Stage, page: Callable[[Request, str], Response]) -> None:
        self._stage = stage
        self._page = page

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route("/backstage", self._alone),
            Route("/backstage/events", self._events),
            Route("/backstage/scan", self._scan, methods=["POST"]),
            Route("/backstage/decide", self._decide, methods=["POST"]),
            Route("/backstage/phone", self._phone, methods=["POST"]),
            Route("/backstage/laptop/ask", self._ask, methods=["POST"]),
            Route("/backstage/laptop/result", self._result, methods=["POST"]),
            Route("/backstage/laptop/close", self._close, methods=["POST"]),
            Mount("/backstage/static", StaticFiles(directory=HERE / "static")),
        ]

    async def _alone(self, request: Request) -> Response:
        return self._page(request, "panel_alone.html")

    async def _events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        following = self._stage.feed.follow(int(last) if last.isdecimal() else 0)
        return StreamingResponse(following, media_type="text/event-stream")

    async def _scan(self, request: Request) -> Response:
        body = await _json(request)
        try:
            code: str | None
            if "picture" in body:
                code = read_picture(base64.b64decode(str(body["picture"]), validate=True))
            else:
                code = str(body["code"]).strip() if body.get("code") else None
            self._stage.scan(code)
        except HybridError as error:
            return _problem(in_words(error))
        except binascii.Error:
            return _problem("this is no picture")
        except ImportError:
            return _problem('reading pictures needs more: pip install "fido-hybrid[image]"')
        return JSONResponse({})

    async def _decide(self, request: Request) -> Response:
        body = await _json(request)
        account = body.get("account", 0)
        approved = body.get("approved") is True
        if self._stage.person.decide(approved, account if isinstance(account, int) else 0):
            self._stage.story.decided(approved)
        return JSONResponse({})

    async def _phone(self, request: Request) -> Response:
        body = await _json(request)
        radio = body.get("radioOn")
        self._stage.configure(str(body.get("kind", "")), radio if isinstance(radio, bool) else None)
        return JSONResponse({})

    async def _ask(self, request: Request) -> Response:
        body = await _json(request)
        name, matrix = self._stage.ask(str(body.get("command")), dict(body.get("options") or {}))
        rows = ["".join("1" if module else "0" for module in row) for row in matrix]
        return JSONResponse({"name": name, "modules": rows})

    async def _result(self, request: Request) -> Response:
        name = str((await _json(request)).get("name"))
        leaving = asyncio.create_task(_left(request))
        leaving.add_done_callback(lambda _: self._stage.give_up(name))  # also if the page is closed meanwhile
        try:
            return JSONResponse(await self._stage.result(name))
        except LaptopFailed as failure:
            return JSONResponse({"error": failure.name, "sentence": str(failure)}, 409)
        finally:
            leaving.cancel()

    async def _close(self, request: Request) -> Response:
        self._stage.give_up(str((await _json(request)).get("name")))
        return JSONResponse({})


def kinds() -> dict[str, str]:
    """The phones to choose from, in words."""
    return {kind: words for kind, (words, _) in KINDS.items()}


_WEBSITE_SAYS = {
    "/api/join/begin": "The website sends a random challenge and asks for a new passkey.",
    "/api/passkeys/begin": "The website sends a random challenge and asks for another passkey.",
    "/api/sign-in/begin": "The website sends a random challenge and asks who is there.",
    "/api/confirm/begin": "The website sends a random challenge: is it still you?",
    "/api/join/finish": "The website keeps the public key. The account is open.",
    "/api/passkeys/finish": "The website keeps the new public key beside the others.",
    "/api/sign-in/finish": "The website checks the signature with the public key it keeps: you are signed in.",
    "/api/confirm/finish": "The website checks the signature: it is you.",
}


class Onlooker:
    """Tells the website's part of the story by looking at which requests succeed, so the website needs not know."""

    def __init__(self, app: ASGIApp, stage: Stage) -> None:
        self._app = app
        self._stage = stage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        says = _WEBSITE_SAYS.get(scope.get("path", ""))

        async def look(message: Message) -> None:
            if says is not None and message["type"] == "http.response.start":
                good = message["status"] < 400
                begins = scope["path"].endswith("/begin")
                if good:
                    self._stage.website(says, begins=begins)
                elif not begins:
                    self._stage.website("The website refuses the answer.", trouble=True)
            await send(message)

        await self._app(scope, receive, look)


async def _left(request: Request) -> None:
    """Return when the page that asks is gone. For requests whose body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _problem(sentence: str) -> Response:
    return JSONResponse({"sentence": sentence}, 400)


async def _json(request: Request) -> dict[str, Any]:
    """The body, {} if it is none."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > _MAX_BODY:
            return {}
    try:
        body = json.loads(received)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
