"""Requests with members of the wrong type: each endpoint says 400 and what is wrong, and does nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from fido2.utils import websafe_decode, websafe_encode

from examples.relying_party.backstage.routes import Panel
from examples.relying_party.backstage.stage import RealWorld, Stage
from hybrid.adapters.memory import MemoryTunnels
from tests.relying_party.visitor import ORIGIN, Phone, Site, Visitor, create, get, reason

VALUES: list[Any] = [None, True, 0, 1.5, 10**30, "\ud800", [], [[]], {}, {"a": []}]
CREATION: dict[str, Any] = {
    "challenge": "AAAAAAAAAAAAAAAAAAAAAA",
    "rp": {"id": "harbour.example", "name": "Harbour"},
    "user": {"id": "AAAA", "name": "ann", "displayName": "Ann"},
    "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
    "excludeCredentials": [{"type": "public-key", "id": "AAAA", "transports": ["hybrid"]}],
    "extensions": {"prf": {"eval": {"first": "AAAA"}}},
    "timeout": 1000,
}
REQUEST: dict[str, Any] = {
    "challenge": "AAAAAAAAAAAAAAAAAAAAAA",
    "rpId": "harbour.example",
    "allowCredentials": [{"type": "public-key", "id": "AAAA"}],
    "timeout": 1000,
}

Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where something stands in a JSON value, however deep."""
    if at:
        yield at
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*at, name))


def changed(value: Any, place: Place, other: Any) -> Any:
    """A copy with `other` at a place."""
    copied = deepcopy(value)
    holder = copied
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = other
    return copied


def at(value: Any, place: Place) -> Any:
    for name in place:
        value = value[name]
    return value


def wrong(value: object) -> list[Any]:
    """Values of every other type. Not null, which is the same as nothing; and numbers are all alike, with the switch
    that WebIDL takes for one."""
    alike = (bool, int, float) if type(value) in (int, float) else (type(value),)
    return [other for other in VALUES if other is not None and type(other) not in alike]


def assert_refused(response: httpx.Response, *, sent: object) -> None:
    assert response.status_code == 400, (response.status_code, sent)
    assert response.json()["sentence"], sent


# behind the scenes


@pytest.fixture(name="panel")
async def open_panel(site: Site) -> AsyncIterator[Callable[..., Any]]:
    stage = Stage(ORIGIN, MemoryTunnels(), RealWorld(), None)
    transport = httpx.ASGITransport(app=site.website.app(*Panel(stage, site.website.page).routes))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:

        async def post(path: str, body: bytes) -> httpx.Response:
            own = {"origin": ORIGIN, "content-type": "application/json"}
            return await client.post(f"/backstage/{path}", content=body, headers=own)

        yield post
    assert stage.feed.lines == ()
    await stage.aclose()


@pytest.mark.parametrize("path", ["scan", "decide", "phone", "laptop/ask", "laptop/result", "laptop/close"])
@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'"a"', b"null", b"{", b"\xff", b"[" * 100_000], ids=lambda body: body[:4]
)
async def test_a_body_that_is_no_object(panel: Callable[..., Any], path: str, body: bytes) -> None:
    assert_refused(await panel(path, body), sent=body[:9])


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("scan", "code", str),
        ("scan", "picture", str),
        ("decide", "approved", bool),
        ("decide", "account", int),
        ("phone", "kind", str),
        ("phone", "radioOn", bool),
        ("laptop/ask", "command", str),
        ("laptop/ask", "options", dict),
        ("laptop/result", "name", str),
        ("laptop/close", "name", str),
    ],
)
async def test_a_member_of_the_panel(panel: Callable[..., Any], path: str, name: str, kind: type) -> None:
    whole = {"command": "get", "options": REQUEST} if path == "laptop/ask" else {}
    for value in VALUES:
        if value is not None and type(value) is not kind:
            assert_refused(await panel(path, json.dumps({**whole, name: value}).encode()), sent=value)


@pytest.mark.parametrize(("command", "options"), [("create", CREATION), ("get", REQUEST)], ids=["create", "get"])
async def test_options_of_the_laptop(panel: Callable[..., Any], command: str, options: dict[str, Any]) -> None:
    """Nobody is shown a code for what no browser would take either."""
    for place in places(options):
        for value in wrong(at(options, place)):
            if "transports" in place:  # hints, which nobody here reads
                continue
            body = {"command": command, "options": changed(options, place, value)}
            assert_refused(await panel("laptop/ask", json.dumps(body).encode()), sent=(place, value))


@pytest.mark.parametrize("last", ["9" * 5000, "-1", "1.5", "x"], ids=lambda text: text[:3])
async def test_a_line_number_that_is_none(site: Site, last: str) -> None:
    """Events are told from the beginning."""
    stage = Stage(ORIGIN, MemoryTunnels(), RealWorld(), None)
    transport = httpx.ASGITransport(app=site.website.app(*Panel(stage, site.website.page).routes))
    stage.feed.close()
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        assert (await client.get("/backstage/events", headers={"last-event-id": last})).status_code == 200


# the website


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("join/begin", {"name": "bob", "displayName": "Bob", "policy": "any", "where": "phone"}),
        ("sign-in/begin", {"where": "phone"}),
        ("passkeys/begin", {"where": "phone", "automatic": True}),
        ("passkeys/rename", {"id": "AAAA", "name": "mine"}),
        ("passkeys/remove", {"id": "AAAA"}),
        ("passkeys/copied", {"id": "AAAA"}),
        ("account/name", {"displayName": "Ann"}),
        ("codes/use", {"name": "ann", "code": "AAAA"}),
        ("admin/policy", {"name": "ann", "policy": "any"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_member_of_the_website(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone, path: str, body: dict[str, Any]
) -> None:
    await ann.join("ann", phone, policy="admin")
    await ann.add(other_phone)
    (kept,) = phone.store.credentials()
    if "id" in body:
        body = {**body, "id": websafe_encode(kept.credential_id)}
    before = site.events()
    for name in body:
        for value in wrong(body[name]):
            assert_refused(await ann.post(path, {**body, name: value}), sent=(name, value))
    assert site.events() == before


async def test_a_registration(site: Site, ann: Visitor, phone: Phone) -> None:
    answer = create(await ann.options("join/begin", name="ann"), phone)
    await assert_read_strictly(ann, "join/finish", answer)
    assert reason(await ann.post("join/finish", answer)) == ""  # none of that used the challenge up


@pytest.mark.parametrize("path", ["sign-in", "confirm"])
async def test_an_assertion(site: Site, ann: Visitor, phone: Phone, path: str) -> None:
    await ann.join("ann", phone)
    answer = get(await ann.options(f"{path}/begin"), phone)
    await assert_read_strictly(ann, f"{path}/finish", answer)
    assert reason(await ann.post(f"{path}/finish", answer)) == ""


async def assert_read_strictly(ann: Visitor, path: str, answer: dict[str, Any]) -> None:
    for place in places(answer):
        for value in wrong(at(answer, place)):
            assert reason(await ann.post(path, changed(answer, place, value))) == "invalid-answer", (place, value)
    for name in ("type", "challenge", "origin"):
        for value in wrong(""):
            said = json.loads(websafe_decode(answer["response"]["clientDataJSON"]))
            hidden = websafe_encode(json.dumps({**said, name: value}).encode())
            sent = await ann.post(path, changed(answer, ("response", "clientDataJSON"), hidden))
            assert reason(sent) == "invalid-answer", (name, value)
