"""A page in the browser: go somewhere, click, read, wait, take pictures, and run WebAuthn ceremonies of its own.

Not a test framework: who has Playwright or Selenium attaches that to the same browser (`Browser.devtools_url`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.errors import HybridError
from hybrid.testing.browser.background import Background
from hybrid.testing.browser.devtools import DevTools, DevToolsError
from hybrid.testing.browser.fido_log import FidoLog, LogReport
from hybrid.testing.browser.patience import INTERVAL, wait_for, wait_until

WAIT = 20.0
"""Seconds that a page gets for what it is waited for."""

_CEREMONY = """
(async () => {
  const started = performance.now();
  const told = outcome => ({seconds: (performance.now() - started) / 1000, ...outcome});
  try {
    const json = %(options)s;
    const abort = window.hybridAbort = new AbortController();
    const options = {publicKey: PublicKeyCredential.%(parse)s(json), signal: abort.signal};
    const credential = await navigator.credentials.%(method)s(options);
    return told({credential: credential.toJSON()});
  } catch (error) {
    return told({error: error.name, message: error.message});
  }
})()
"""

# An element has no value that could leave the page.
_TRUE = """
(async () => {
  const value = await (%(expression)s);
  return value instanceof Node ? true : value || null;
})()
"""

_MIDDLE = """
element => {
  element.scrollIntoView({block: "center", behavior: "instant"});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}
"""

_PAINTED = "performance.getEntriesByType('paint').length"


class PageError(HybridError):
    """The page does not do what it is asked for."""

    @property
    def identifier(self) -> str:
        return "browser.page"


@dataclass(frozen=True, slots=True)
class PageOutcome:
    """How a ceremony ended for the page.

    `credential`: what the credential's toJSON gave (WebAuthn Level 3), None if it failed; `error`: name of the
    DOMException, e.g. "NotAllowedError"; `seconds`: from the call until its promise was settled.
    """

    credential: dict[str, Any] | None
    error: str | None
    message: str
    seconds: float

    @property
    def extensions(self) -> dict[str, Any]:
        """clientExtensionResults. Raises `PageError` if there is no credential."""
        if self.credential is None:
            raise PageError(f"the page got no credential: {self.error}: {self.message}")
        results: dict[str, Any] = self.credential["clientExtensionResults"]
        return results


class Ceremony:
    """One call of navigator.credentials that goes on."""

    def __init__(self, page: Page, method: str, script: str) -> None:
        self._page = page
        self._method = method
        self._mark = page.log.size
        self._outcome = page.begin(script)

    def outcome(self, limit: float = WAIT) -> PageOutcome:
        """Wait for the end. Raises `PageError` if it does not come within `limit` seconds, or the page went away."""
        try:
            told: dict[str, Any] = self._outcome.result(limit)
        except TimeoutError:
            raise PageError(f"credentials.{self._method}() goes on after {limit:g} s; {self._hint()}") from None
        except DevToolsError as error:
            raise PageError(f"the page of credentials.{self._method}() is gone: {error}") from error
        return PageOutcome(told.get("credential"), told.get("error"), told.get("message", ""), told["seconds"])

    def wait(self, seconds: float) -> None:
        """Wait for the end, but no longer than that."""
        futures.wait([self._outcome], seconds)

    @property
    def is_over(self) -> bool:
        return self._outcome.done()

    def abort(self) -> None:
        """Let the page give up, with its AbortController."""
        self._page.evaluate("window.hybridAbort.abort()")

    def log(self) -> LogReport:
        """What Chromium logged since the call."""
        return self._page.log.since(self._mark)

    def wait_for_log(self, words: str, limit: float = WAIT) -> None:
        """Wait until Chromium has logged these words about this ceremony. Raises `PageError`."""
        until = time.monotonic() + limit
        while words not in self.log().text:
            if time.monotonic() >= until:
                raise PageError(f"Chromium does not log within {limit:g} s: {words}; {self._hint()}")
            time.sleep(INTERVAL)  # the log does not tell

    def _hint(self) -> str:
        steps = self.log().steps
        return f"the browser's dialog is at {steps[-1]}" if steps else "the browser shows no dialog"


class Page:
    """One tab. Every method waits until it is done and may be called from any thread but the rig's."""

    def __init__(
        self, background: Background[Any], devtools: DevTools, target: str, session: str, log: FidoLog
    ) -> None:
        self.target = target
        self.log = log
        self._background = background
        self._devtools = devtools
        self._session = session

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._background.run(self._devtools.call(method, self._session, **parameters))

    def goto(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        self._background.run(self._goto(url))

    async def _goto(self, url: str) -> None:
        answer = await self._devtools.call("Page.navigate", self._session, url=url)
        if answer.get("errorText"):
            raise PageError(f"{url} cannot be loaded: {answer['errorText']}")
        # Chromium answers when it has the new document, so the state is that one's.
        if await self._wait_for("document.readyState === 'complete'", WAIT) is None:
            raise PageError(f"{url} is not complete within {WAIT:g} s")

    def evaluate(self, expression: str, limit: float = WAIT) -> Any:
        """Give the value of a JavaScript expression, or what its promise comes to. Raises `PageError` if it throws."""
        return self._background.run(self._evaluate(expression, limit))

    async def _evaluate(self, expression: str, limit: float | None) -> Any:
        answer = await self._devtools.call(
            "Runtime.evaluate",
            self._session,
            limit=limit,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise PageError(thrown.get("exception", {}).get("description") or thrown["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str, limit: float = WAIT) -> Any:
        """Wait until an expression is true; give its value. It may not be there yet: what throws is not true."""
        found = self._background.run(self._wait_for(expression, limit))
        if found is None:
            raise PageError(f"not true within {limit:g} s: {expression}")
        return found

    async def _wait_for(self, expression: str, limit: float) -> Any:
        script = _TRUE % {"expression": expression}

        async def look() -> Any:
            try:
                return await self._evaluate(script, limit)
            except (PageError, DevToolsError):  # a page that is being replaced
                return None

        return await wait_until(look, limit)

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse. Waits for it first."""
        # Chromium drops what the mouse does before a page's first paint.
        self.wait_for(f"{_PAINTED} && document.querySelector({json.dumps(selector)})")
        x, y = self.evaluate(f"({_MIDDLE})(document.querySelector({json.dumps(selector)}))")
        mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field in place of what is there. Waits for it first."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        self.evaluate(f"(e => {{ e.focus(); e.select?.(); }})(document.querySelector({json.dumps(selector)}))")
        self._call("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        """Text of an element as it is shown. Waits for it first."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(found)
        return str(self.evaluate(f"{found}.innerText"))

    def view(
        self, width: int = 0, height: int = 0, *, scale: float = 0, dark: bool | None = None, mobile: bool = False
    ) -> None:
        """Pretend another viewport in CSS pixels, pixels per CSS pixel, and colour scheme; 0 and None as they are."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = "" if dark is None else "dark" if dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path | None = None, *, full: bool = False) -> bytes:
        """The page as PNG, without the browser's own windows; `full`: beyond the viewport, too."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        png = base64.b64decode(answer["data"])
        if path is not None:
            path.write_bytes(png)
        return png

    def create(self, options: Mapping[str, Any]) -> Ceremony:
        """Begin navigator.credentials.create() with PublicKeyCredentialCreationOptionsJSON."""
        return self._begin("create", "parseCreationOptionsFromJSON", options)

    def get(self, options: Mapping[str, Any]) -> Ceremony:
        """Begin navigator.credentials.get() with PublicKeyCredentialRequestOptionsJSON."""
        return self._begin("get", "parseRequestOptionsFromJSON", options)

    def _begin(self, method: str, parse: str, options: Mapping[str, Any]) -> Ceremony:
        script = _CEREMONY % {"options": json.dumps(options), "method": method, "parse": parse}
        return Ceremony(self, method, script)

    def begin(self, expression: str) -> Future[Any]:
        """Begin what `evaluate` does, and do not wait for it."""
        return self._background.begin(self._evaluate(expression, None))

    async def forget_sites(self) -> None:
        """Forget cookies and storage of every website that the browser has seen."""
        await self._devtools.call("Storage.clearDataForOrigin", self._session, origin="*", storageTypes="all")

    @property
    def is_closed(self) -> bool:
        return self._devtools.has_ended(self._session)

    def close(self) -> None:
        """Close the tab. Nothing happens if it is closed already; in the place of the last tab comes an empty one,
        without which the browser would end."""
        if not self.is_closed:
            self._background.run(self._close())

    async def _close(self) -> None:
        targets = (await self._devtools.call("Target.getTargets"))["targetInfos"]
        if all(target["type"] != "page" or target["targetId"] == self.target for target in targets):
            await self._devtools.call("Target.createTarget", url="about:blank", background=True)
        with contextlib.suppress(DevToolsError):  # the page may close itself at this moment
            await self._devtools.call("Target.closeTarget", targetId=self.target)
        await wait_for(lambda: self.is_closed or None, WAIT)


async def attach(background: Background[Any], devtools: DevTools, log: FidoLog, target: str) -> Page:
    """Attach to a tab."""
    session = (await devtools.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    return Page(background, devtools, target, session, log)
