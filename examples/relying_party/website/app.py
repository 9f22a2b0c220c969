"""The website on Starlette: pages for people, JSON for the page's script, and who may ask for what.

Forgery: a request that changes something must come from our own origin, as its ``Origin`` header says, and carry JSON,
which no form of another site can send; the session's cookie is ``SameSite=Lax`` besides.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fido2.utils import websafe_decode, websafe_encode
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from examples.relying_party.website.accounts import Account, Accounts, Passkey, clean_name
from examples.relying_party.website.audit import AuditLog, Happened, fingerprint
from examples.relying_party.website.ceremonies import Ceremonies, SignedIn
from examples.relying_party.website.challenges import Challenges
from examples.relying_party.website.database import Database
from examples.relying_party.website.headers import KnownHost, OwnOrigin, SecurityHeaders
from examples.relying_party.website.policy import Policy
from examples.relying_party.website.providers import ProviderNames
from examples.relying_party.website.recovery import CODES, Recovery
from examples.relying_party.website.refused import Reason, Refused
from examples.relying_party.website.sessions import Scope, Session, Sessions
from examples.relying_party.website.settings import Settings
from examples.relying_party.website.words import FILTERS

_HERE = Path(__file__).parent
_MAX_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Visitor:
    """A request with a session, and the account behind it."""

    session: Session
    account: Account


class Website:
    """One website: its tables, its rules, its pages.

    `clock` gives seconds since 1970; `panel`: a folder with ``templates/panel.html``, shown beside every page, and
    values for it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], int] = lambda: int(time.time()),
        panel: tuple[Path, dict[str, Any]] | None = None,
    ) -> None:
        self.settings = settings
        self.database = Database(settings.database)
        self.audit = AuditLog(self.database, clock)
        self.accounts = Accounts(self.database, self.audit, clock)
        self.names = ProviderNames(settings.provider_list)
        self.sessions = Sessions(self.database, clock, settings.session_lifetime)
        self.recovery = Recovery(self.database, self.accounts, self.audit, clock)
        self.challenges = Challenges(self.database, clock, settings.challenge_lifetime)
        self.ceremonies = Ceremonies(settings, self.accounts, self.challenges, self.audit, self.names)
        self._clock = clock
        self._panel = None if panel is None else panel[1]
        folders = [_HERE / "templates", *([] if panel is None else [panel[0] / "templates"])]
        self._pages = Environment(
            loader=FileSystemLoader(folders), autoescape=select_autoescape(), undefined=StrictUndefined
        )
        self._pages.filters |= FILTERS
        # Cookies of this prefix are bound to this host, and no other page can plant them.
        prefix = "__Host-" if settings.secure else ""
        self._session_cookie, self._browser_cookie = f"{prefix}session", f"{prefix}browser"

    def app(self, *more: BaseRoute) -> Starlette:
        """The ASGI application, with `more` routes of the side panel."""
        routes = [
            Route("/", self._home),
            Route("/join", self._join),
            Route("/account", self._account),
            Route("/log", self._log),
            Route("/recover", self._recover),
            Route("/admin", self._admin),
            Route("/.well-known/webauthn", self._related_origins),
            *(Route(f"/api/{path}", handler, methods=["POST"]) for path, handler in self._api().items()),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
            *more,
        ]
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(KnownHost, origins=self.settings.accepted_origins, home=self.settings.origins[0]),
                Middleware(SecurityHeaders, secure=self.settings.secure),
                Middleware(OwnOrigin, origins=self.settings.accepted_origins),
            ],
            exception_handlers={Refused: self._refused, HTTPException: self._http_error},
        )

    def close(self) -> None:
        self.database.close()

    def _api(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        return {
            "join/begin": self._join_begin,
            "join/finish": self._join_finish,
            "sign-in/begin": self._sign_in_begin,
            "sign-in/finish": self._sign_in_finish,
            "confirm/begin": self._confirm_begin,
            "confirm/finish": self._confirm_finish,
            "passkeys/begin": self._add_begin,
            "passkeys/finish": self._add_finish,
            "passkeys/rename": self._rename,
            "passkeys/remove": self._remove,
            "passkeys/copied": self._copied,
            "account/name": self._display_name,
            "codes/new": self._new_codes,
            "codes/use": self._use_code,
            "sign-out": self._sign_out,
            "admin/policy": self._set_policy,
        }

    # who asks

    def _visitor(self, request: Request) -> Visitor | None:
        session = self.sessions.find(request.cookies.get(self._session_cookie))
        return None if session is None else Visitor(session, self.accounts.get(session.account))

    def _signed_in(self, request: Request, *, fresh: bool = False, enrol: bool = False) -> Visitor:
        """Raises `Refused` unless somebody is signed in; `enrol`: also in a session that may only add a passkey;
        `fresh`: and has signed within the last minutes."""
        visitor = self._visitor(request)
        if visitor is None:
            raise Refused(Reason.SIGNED_OUT)
        if visitor.session.scope is Scope.ENROL and not enrol:
            raise Refused(Reason.ADD_PASSKEY_FIRST)
        # In a session for enrolment the code or the passkey that began it is the proof; it cannot give another one.
        is_fresh = self._clock() - visitor.session.verified <= self.settings.fresh
        if fresh and not is_fresh and visitor.session.scope is Scope.FULL:
            raise Refused(Reason.NOT_FRESH)
        return visitor

    def _browser(self, request: Request) -> str:
        """The secret that ties a challenge to a browser, new for each that has none."""
        return request.cookies.get(self._browser_cookie) or secrets.token_urlsafe(32)

    def _set_cookie(self, response: Response, name: str, value: str, lifetime: int | None = None) -> None:
        response.set_cookie(
            name, value, max_age=lifetime, path="/", secure=self.settings.secure, httponly=True, samesite="lax"
        )

    # pages

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page from `template`, for whoever asks."""
        visitor = self._visitor(request)
        text = self._pages.get_template(template).render(
            site=self.settings,
            policies=list(Policy),
            visitor=visitor,
            panel=self._panel,
            here=request.url.path,
            **values,
        )
        return HTMLResponse(text, status)

    async def _home(self, request: Request) -> Response:
        if self._visitor(request) is not None:
            return RedirectResponse("/account", 303)
        return self.page(request, "sign_in.html")

    async def _join(self, request: Request) -> Response:
        if self._visitor(request) is not None:
            return RedirectResponse("/account", 303)
        return self.page(request, "join.html")

    async def _recover(self, request: Request) -> Response:
        return self.page(request, "recover.html")

    async def _account(self, request: Request) -> Response:
        visitor = self._visitor(request)
        if visitor is None:
            return RedirectResponse("/", 303)
        passkeys = self.accounts.passkeys(visitor.account)
        return self.page(
            request,
            "account.html",
            passkeys=passkeys,
            provider_of={passkey.id: self.names.of(passkey.aaguid) for passkey in passkeys},
            used_now=visitor.session.passkey,
            enrolling=visitor.session.scope is Scope.ENROL,
            codes_left=self.recovery.left(visitor.account),
            codes_total=CODES,
        )

    async def _log(self, request: Request) -> Response:
        visitor = self._visitor(request)
        if visitor is None or visitor.session.scope is Scope.ENROL:
            return RedirectResponse("/", 303)
        everybody = visitor.account.policy is Policy.ADMIN and "everybody" in request.query_params
        entries = self.audit.entries(None if everybody else visitor.account.id)
        return self.page(request, "log.html", entries=entries, everybody=everybody, intact=self.audit.intact())

    async def _admin(self, request: Request) -> Response:
        visitor = self._signed_in(request)
        if visitor.account.policy is not Policy.ADMIN:
            raise Refused(Reason.NOT_ADMIN)
        rows = [(account, self.accounts.passkeys(account)) for account in self.accounts.everyone()]
        return self.page(request, "admin.html", rows=rows)

    async def _related_origins(self, request: Request) -> Response:
        """Which other origins may use our RP id (Web Authentication Level 3, "Related Origin Requests")."""
        return JSONResponse({"origins": list(self.settings.related)})

    # registration

    async def _join_begin(self, request: Request) -> Response:
        body = await _body(request)
        policy = _policy(body.get("policy", "any")) if self.settings.open_classes else Policy.ANY
        draft = self.accounts.draft(body.get("name"), body.get("displayName"), policy)
        browser = self._browser(request)
        return self._options(
            browser, self.ceremonies.begin_registration(draft, browser, new=True, where=_text(body, "where"))
        )

    async def _join_finish(self, request: Request) -> Response:
        account, passkey = self.ceremonies.finish_registration(await _body(request), self._browser(request), owner=None)
        codes = self.recovery.new_codes(account)
        return self._begin_session(account, passkey, codes=codes)

    async def _add_begin(self, request: Request) -> Response:
        visitor = self._signed_in(request, fresh=True, enrol=True)
        body = await _body(request)
        automatic = body.get("automatic", False)
        if not isinstance(automatic, bool):
            raise Refused(Reason.BAD_REQUEST)
        browser = self._browser(request)
        options = self.ceremonies.begin_registration(
            visitor.account,
            browser,
            new=False,
            where=_text(body, "where"),
            automatic=automatic,
        )
        return self._options(browser, options)

    async def _add_finish(self, request: Request) -> Response:
        visitor = self._signed_in(request, fresh=True, enrol=True)
        account, passkey = self.ceremonies.finish_registration(
            await _body(request), self._browser(request), owner=visitor.account
        )
        enough = len(self.accounts.passkeys(account)) >= account.policy.passkeys_needed
        if visitor.session.scope is Scope.ENROL and enough:
            self.sessions.widen(visitor.session, passkey.id)
        return JSONResponse({"next": "/account", "signal": self._signal(account)})

    # sign-in

    async def _sign_in_begin(self, request: Request) -> Response:
        body = await _body(request)
        browser = self._browser(request)
        return self._options(browser, self.ceremonies.begin_sign_in(browser, where=_text(body, "where")))

    async def _sign_in_finish(self, request: Request) -> Response:
        body = await _body(request)
        try:
            signed = self.ceremonies.finish_sign_in(body, self._browser(request))
        except Refused as refusal:
            if refusal.reason is not Reason.UNKNOWN_PASSKEY:
                raise
            # The browser can take it out of the list that it offers next time.
            return _failure(refusal, unknown={"rpId": self.settings.rp_id, "credentialId": str(body.get("id", ""))})
        return self._begin_session(signed.account, signed.passkey)

    async def _confirm_begin(self, request: Request) -> Response:
        visitor = self._signed_in(request)
        browser = self._browser(request)
        return self._options(browser, self.ceremonies.begin_sign_in(browser, confirm=visitor.account))

    async def _confirm_finish(self, request: Request) -> Response:
        visitor = self._signed_in(request)
        signed: SignedIn = self.ceremonies.finish_sign_in(
            await _body(request), self._browser(request), confirm=visitor.account
        )
        self.sessions.confirm(visitor.session, signed.passkey.id)
        return JSONResponse({"next": "/account"})

    def _begin_session(self, account: Account, passkey: Passkey, codes: list[str] | None = None) -> Response:
        enough = len(self.accounts.passkeys(account)) >= account.policy.passkeys_needed
        token = self.sessions.open(account.id, Scope.FULL if enough else Scope.ENROL, passkey.id)
        way = passkey.last_way
        response = JSONResponse(
            {
                "next": "/account",
                "signal": self._signal(account),
                # Somebody who came by phone may want a passkey on this device as well, if the browser can make one
                # without a question. Those are synced, so other classes of accounts would refuse them.
                "upgrade": way == "phone" and enough and account.policy is Policy.ANY,
                **({"codes": codes} if codes else {}),
            }
        )
        self._set_cookie(response, self._session_cookie, token, self.settings.session_lifetime)
        return response

    def _signal(self, account: Account) -> dict[str, Any]:
        """What the browser should know, so that it offers what works and under the right name."""
        return {
            "rpId": self.settings.rp_id,
            "userId": websafe_encode(account.id),
            "name": account.name,
            "displayName": account.display_name,
            "allAcceptedCredentialIds": [websafe_encode(passkey.id) for passkey in self.accounts.passkeys(account)],
        }

    # the account's own affairs

    async def _rename(self, request: Request) -> Response:
        _, passkey, body = await self._about_passkey(request)
        self.accounts.rename(passkey, body.get("name"))
        return JSONResponse({"next": "/account"})

    async def _copied(self, request: Request) -> Response:
        _, passkey, _ = await self._about_passkey(request)
        self.accounts.report_copy(passkey)
        return JSONResponse({"next": "/account"})

    async def _remove(self, request: Request) -> Response:
        visitor, passkey, _ = await self._about_passkey(request, fresh=True)
        try:
            self.accounts.remove(visitor.account, passkey, codes_left=self.recovery.left(visitor.account))
        except Refused as refusal:
            self.audit.note(
                Happened.REFUSED,
                visitor.account.id,
                reason=refusal.reason.value,
                passkey=fingerprint(passkey.id),
                name=passkey.nickname,
            )
            raise
        return JSONResponse({"next": "/account", "signal": self._signal(visitor.account)})

    async def _about_passkey(self, request: Request, *, fresh: bool = False) -> tuple[Visitor, Passkey, dict[str, Any]]:
        visitor = self._signed_in(request, fresh=fresh)
        body = await _body(request)
        try:
            credential_id = websafe_decode(_text(body, "id"))
        except ValueError:
            raise Refused(Reason.BAD_REQUEST) from None
        return visitor, self.accounts.own_passkey(visitor.account, credential_id), body

    async def _display_name(self, request: Request) -> Response:
        visitor = self._signed_in(request)
        self.accounts.show_as(visitor.account, (await _body(request)).get("displayName"))
        return JSONResponse({"next": "/account", "signal": self._signal(self.accounts.get(visitor.account.id))})

    async def _new_codes(self, request: Request) -> Response:
        visitor = self._signed_in(request, fresh=True)
        return JSONResponse({"next": "/account", "codes": self.recovery.new_codes(visitor.account)})

    async def _use_code(self, request: Request) -> Response:
        body = await _body(request)
        source = request.client.host if request.client is not None else ""
        account = self.recovery.use(body.get("name"), body.get("code"), source=source)
        response = JSONResponse({"next": "/account"})
        token = self.sessions.open(account.id, Scope.ENROL, None)
        self._set_cookie(response, self._session_cookie, token, self.settings.session_lifetime)
        return response

    async def _sign_out(self, request: Request) -> Response:
        visitor = self._visitor(request)
        if visitor is not None:
            self.sessions.end(visitor.session)
            self.audit.note(Happened.SIGNED_OUT, visitor.account.id)
        response = JSONResponse({"next": "/"})
        response.delete_cookie(
            self._session_cookie, path="/", secure=self.settings.secure, httponly=True, samesite="lax"
        )
        return response

    async def _set_policy(self, request: Request) -> Response:
        visitor = self._signed_in(request, fresh=True)
        if visitor.account.policy is not Policy.ADMIN:
            raise Refused(Reason.NOT_ADMIN)
        body = await _body(request)
        subject = self.accounts.named(clean_name(body.get("name")))
        if subject is None or subject.id == visitor.account.id:  # nobody lets themselves off
            raise Refused(Reason.BAD_REQUEST)
        self.accounts.override_policy(subject, _policy(body.get("policy")), visitor.account)
        return JSONResponse({"next": "/admin"})

    # answers

    def _options(self, browser: str, options: dict[str, Any]) -> Response:
        response = JSONResponse({"publicKey": options})
        self._set_cookie(response, self._browser_cookie, browser)
        return response

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        if request.url.path.startswith("/api/"):
            return _failure(error)
        return self.page(request, "problem.html", error.status, title="Not now", sentence=str(error))

    async def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.method != "GET":
            return JSONResponse({"reason": "http", "sentence": error.detail}, error.status_code)
        sentence = "there is no such page" if error.status_code == 404 else error.detail
        return self.page(request, "problem.html", error.status_code, title="Not here", sentence=sentence)


def _failure(refusal: Refused, **more: Any) -> Response:
    return JSONResponse({"reason": refusal.reason.value, "sentence": str(refusal), **more}, refusal.status)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, at most 64 KiB. Raises `Refused`."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > _MAX_BODY:
            raise Refused(Reason.BAD_REQUEST)
    try:
        body = json.loads(received or b"{}")
    except (ValueError, RecursionError):
        raise Refused(Reason.BAD_REQUEST) from None
    if not isinstance(body, dict):
        raise Refused(Reason.BAD_REQUEST)
    return body


def _text(body: dict[str, Any], name: str) -> str:
    """A member that is a text, "" if there is none. Raises `Refused`."""
    text = body.get(name, "")
    if not isinstance(text, str):
        raise Refused(Reason.BAD_REQUEST)
    return text


def _policy(value: object) -> Policy:
    try:
        return Policy(str(value))
    except ValueError:
        raise Refused(Reason.BAD_REQUEST) from None
