"""The stage behind the website: phone, relay and simulated laptop, without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from examples.relying_party import __main__ as command
from examples.relying_party.backstage.routes import HERE, Onlooker, Panel, kinds
from examples.relying_party.backstage.stage import Stage, open_stage
from examples.relying_party.website.app import Website
from tests.relying_party.visitor import ORIGIN, Visitor, reason, settings

pytestmark = pytest.mark.slow


@dataclass
class Theatre:
    """A website with its panel, and a browser in front."""

    stage: Stage
    visitor: Visitor

    async def panel(self, path: str, body: object = None) -> httpx.Response:
        return await self.visitor.client.post(f"/backstage/{path}", json=body or {}, headers={"origin": ORIGIN})

    async def ask(self, command: str, options: dict[str, Any]) -> str:
        shown = await self.panel("laptop/ask", {"command": command, "options": options})
        modules = shown.json()["modules"]
        assert {len(row) for row in modules} == {len(modules)}
        return str(shown.json()["name"])

    async def answer(self, *, approved: bool = True) -> None:
        """Wait for the phone's question, and click."""
        async with asyncio.timeout(10):
            async for _ in self.stage.feed.follow():
                if self.stage.person.shown is not None:
                    break
        await self.panel("decide", {"approved": approved})

    async def ceremony(self, command: str, options: dict[str, Any], *, approved: bool = True) -> httpx.Response:
        name = await self.ask(command, options)
        assert (await self.panel("scan")).status_code == 200
        result, _ = await asyncio.gather(self.panel("laptop/result", {"name": name}), self.answer(approved=approved))
        return result

    @property
    def told(self) -> str:
        return "\n".join(line.text for line in self.stage.feed.lines)


@asynccontextmanager
async def open_theatre() -> AsyncIterator[Theatre]:
    async with open_stage(ORIGIN) as stage:
        website = Website(settings(), panel=(HERE, {"kinds": kinds()}))
        app = Onlooker(website.app(*Panel(stage, website.page).routes), stage)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ORIGIN) as client:
            yield Theatre(stage, Visitor(client))
        website.close()


@pytest.fixture
async def theatre() -> AsyncIterator[Theatre]:
    async with open_theatre() as opened:
        yield opened


async def test_the_whole_story(theatre: Theatre) -> None:
    visitor = theatre.visitor
    made = await theatre.ceremony("create", await visitor.options("join/begin", name="ada"))
    assert reason(await visitor.post("join/finish", made.json())) == ""
    used = await theatre.ceremony("get", await visitor.options("sign-in/begin"))
    assert reason(await visitor.post("sign-in/finish", used.json())) == ""
    steps = [line.step for line in theatre.stage.feed.lines if line.step is not None and not line.quiet]
    assert list(dict.fromkeys(steps)) == ["code", "near", "meet", "secure", "ask", "answer"]
    for sentence in ("shows a QR code", "whispers", "Handshake", "stays on the phone", "you are signed in"):
        assert sentence in theatre.told
    assert "sealed bytes from the laptop to the phone" in theatre.told


async def test_no_secret_reaches_the_panel(theatre: Theatre) -> None:
    options = await theatre.visitor.options("join/begin", name="ada")
    made = (await theatre.ceremony("create", options)).json()
    text = "".join([event async for event in first_events(theatre.stage)])
    (kept,) = theatre.stage.store.credentials()
    for secret in (options["challenge"], options["user"]["id"], made["id"], kept.private_key.hex(), "FIDO:/"):
        assert secret not in text


async def first_events(stage: Stage) -> AsyncIterator[str]:
    async for event in stage.feed.follow():
        yield event
        return


async def test_a_panel_that_was_open_before_the_server_is_told_from_the_beginning(theatre: Theatre) -> None:
    await theatre.visitor.options("sign-in/begin")
    for last, told in (("0", True), ("1", False), ("2", True)):
        async for event in theatre.stage.feed.follow(int(last)):
            assert ("asks who is there" in event) == told
            break


async def test_the_phone_declines(theatre: Theatre) -> None:
    options = await theatre.visitor.options("join/begin", name="ada")
    result = await theatre.ceremony("create", options, approved=False)
    assert (result.status_code, result.json()["error"]) == (409, "NotAllowedError")
    assert "You decline" in theatre.told
    assert theatre.stage.store.credentials() == []


async def test_a_second_passkey_for_the_same_account(theatre: Theatre) -> None:
    visitor = theatre.visitor
    made = await theatre.ceremony("create", await visitor.options("join/begin", name="ada"))
    await visitor.post("join/finish", made.json())
    again = await theatre.ceremony("create", await visitor.options("passkeys/begin"))
    assert again.json()["error"] == "InvalidStateError"


async def test_bluetooth_off_costs_no_code(theatre: Theatre) -> None:
    options = await theatre.visitor.options("join/begin", name="ada")
    await theatre.ceremony("create", options, approved=False)
    await theatre.panel("phone", {"radioOn": False})
    name = await theatre.ask("create", options)
    refused = await theatre.panel("scan")
    assert refused.status_code == 400
    assert "switched off" in refused.json()["sentence"]
    await theatre.panel("phone", {"radioOn": True})
    assert (await theatre.panel("scan")).status_code == 200
    result, _ = await asyncio.gather(theatre.panel("laptop/result", {"name": name}), theatre.answer())
    assert result.status_code == 200


async def test_a_phone_that_syncs(theatre: Theatre) -> None:
    visitor = theatre.visitor
    for kind, provider in (("iphone", "iCloud Keychain"), ("android", "Google Password Manager")):
        await theatre.panel("phone", {"kind": kind})
        made = await theatre.ceremony("create", await visitor.options("join/begin", name=kind, policy="device-bound"))
        assert reason(await visitor.post("join/finish", made.json())) == "not-device-bound"
        made = await theatre.ceremony("create", await visitor.options("join/begin", name=kind))
        assert reason(await visitor.post("join/finish", made.json())) == ""
        page = await visitor.page("/account")
        assert provider in page.text
        await visitor.post("sign-out")


async def test_an_administrator_with_two_phones(theatre: Theatre) -> None:
    visitor = theatre.visitor
    made = await theatre.ceremony("create", await visitor.options("join/begin", name="ada", policy="admin"))
    assert reason(await visitor.post("join/finish", made.json())) == ""
    assert (await visitor.page("/admin")).status_code == 403
    page = (await visitor.page("/account")).text
    assert "Add a passkey to go on" in page
    assert 'href="/log"' not in page
    assert 'href="/admin"' not in page
    await theatre.panel("phone", {"kind": "microg"})
    made = await theatre.ceremony("create", await visitor.options("passkeys/begin"))
    assert reason(await visitor.post("passkeys/finish", made.json())) == ""
    assert "unknown: the device does not say" in (await visitor.page("/account")).text
    assert 'href="/log"' in (await visitor.page("/admin")).text
    assert "Account made" in (await visitor.page("/log?everybody")).text


async def test_a_dialog_that_is_closed(theatre: Theatre) -> None:
    name = await theatre.ask("create", await theatre.visitor.options("join/begin", name="ada"))
    waiting = asyncio.create_task(theatre.panel("laptop/result", {"name": name}))
    await asyncio.sleep(0)
    await theatre.panel("laptop/close", {"name": name})
    assert (await waiting).json()["error"] == "AbortError"
    assert (await theatre.panel("scan")).status_code == 400  # nothing to scan any more


async def test_a_stage_that_closes_ends_everything() -> None:
    async with open_theatre() as theatre:
        name = await theatre.ask("create", await theatre.visitor.options("join/begin", name="ada"))
        await theatre.panel("scan")
        waiting = asyncio.create_task(theatre.panel("laptop/result", {"name": name}))
        await asyncio.sleep(0.01)  # let the request arrive
        await theatre.stage.aclose()
        assert (await waiting).json()["error"] == "AbortError"


@pytest.mark.parametrize(
    "body",
    [{"code": "hello"}, {"code": "FIDO:/123"}, {"picture": "!"}, {"picture": "AAAA"}, {"picture": 5}, {}],
    ids=json.dumps,
)
async def test_what_is_no_code(theatre: Theatre, body: dict[str, Any]) -> None:
    refused = await theatre.panel("scan", body)
    assert refused.status_code == 400
    assert refused.json()["sentence"]


async def test_other_websites_do_not_command_the_phone(theatre: Theatre) -> None:
    for path in ("scan", "decide", "phone", "laptop/ask", "laptop/result", "laptop/close"):
        refused = await theatre.visitor.client.post(
            f"/backstage/{path}", json={}, headers={"origin": "https://evil.example"}
        )
        assert refused.status_code == 403


async def test_pages_show_the_panel_and_load_nothing_from_elsewhere(theatre: Theatre) -> None:
    for path in ("/", "/join", "/recover"):
        page = (await theatre.visitor.page(path)).text
        assert 'class="stage"' in page
        assert "<script>" not in page
        assert "style=" not in page
        assert "://" not in page.replace('"http://www.w3.org/2000/svg"', "")
    for path in ("/static/site.js", "/static/site.css", "/backstage/static/panel.js", "/backstage/static/laptop.js"):
        text = (await theatre.visitor.page(path)).text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "65536"], "a port is a number up to 65535"),
        (["--port", "x"], "a port is a number up to 65535"),
        (["--attestation-roots", "nowhere.pem"], "there is no file nowhere.pem"),
        (["--relay-ca", "nowhere.pem"], "there is no file nowhere.pem"),
        (["--database", "nowhere/accounts.db"], "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_line_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr("sys.argv", ["relying_party", *arguments])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert sentence in capsys.readouterr().err
