"""The panel's own requests. Whoever may send them commands the phone: only for a server on this machine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
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
_IN_JSON: dict[type, str] = {str: "a string", bool: "true or false", int: "a whole number", dict: "an object"}
_Kind = TypeVar("_Kind", str, bool, int, dict[str, Any])


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
        following = self._stage.feed.follow(int(last) if last.isdecimal() and len(last) < 20 else 0)
        return StreamingResponse(following, media_type="text/event-stream")

    async def _scan(self, request: Request) -> Response:
        body = await _json(request)
        picture, code = _member(body, "picture", str), _member(body, "code", str)
        try:
            if picture is not None:
                code = read_picture(base64.b64decode(picture, validate=True))
            self._stage.scan(code.strip() if code else None)
        except HybridError as error:
            return _problem(in_words(error))
        except ValueError:  # no base64
            return _problem("this is no picture")
        except ImportError:
            return _problem('reading pictures needs more: pip install "fido-hybrid[image]"')
        return JSONResponse({})

    async def _decide(self, request: Request) -> Response:
        body = await _json(request)
        approved = _member(body, "approved", bool) or False
        if self._stage.person.decide(approved, _member(body, "account", int) or 0):
            self._stage.story.decided(approved)
        return JSONResponse({})

    async def _phone(self, request: Request) -> Response:
        body = await _json(request)
        kind, radio_on = _member(body, "kind", str), _member(body, "radioOn", bool)
        if kind is not None and kind not in KINDS:
            return _problem("there is no such kind of phone")
        self._stage.configure(kind, radio_on)
        return JSONResponse({})

    async def _ask(self, request: Request) -> Response:
        body = await _json(request)
        command, options = _member(body, "command", str), _member(body, "options", dict)
        if command not in ("create", "get"):
            return _problem("command must be create or get")
        try:
            name, matrix = self._stage.ask(command, options or {})
        except HybridError as error:
            return _problem(in_words(error))
        rows = ["".join("1" if module else "0" for module in row) for row in matrix]
        return JSONResponse({"name": name, "modules": rows})

    async def _result(self, request: Request) -> Response:
        name = _member(await _json(request), "name", str) or ""
        leaving = asyncio.create_task(_left(request))
        leaving.add_done_callback(lambda _: self._stage.give_up(name))  # also if the page is closed meanwhile
        try:
            return JSONResponse(await self._stage.result(name))
        except LaptopFailed as failure:
            return JSONResponse({"error": failure.name, "sentence": str(failure)}, 409)
        finally:
            leaving.cancel()

    async def _close(self, request: Request) -> Response:
        self._stage.give_up(_member(await _json(request), "name", str) or "")
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
    """The JSON object of a request, {} if it has no body. Raises `HTTPException` for anything else, and a long one."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > _MAX_BODY:
            raise HTTPException(413, "this is too long")
    try:
        body = json.loads(received or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return body


def _member(body: dict[str, Any], name: str, kind: type[_Kind]) -> _Kind | None:
    """A member of a body, None if it is left out or null. Raises `HTTPException` if it is of another type."""
    value = body.get(name)
    if value is None or type(value) is kind:  # not isinstance: a bool is no number in JSON
        return value
    raise HTTPException(400, f"{name} must be {_IN_JSON[kind]}")
