"""An event loop in a thread of its own, so that a rig of coroutines serves plain functions.

Whoever waits for a result may be any thread but the loop's own; an interrupted wait cancels what was waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Background(Generic[_T]):
    """A context manager that keeps an async one open on its own loop. Entering gives what that one gives."""

    def __init__(self, context: AbstractAsyncContextManager[_T]) -> None:
        self._context = context
        self._ready: Future[_T] = Future()
        self._ended: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        # A daemon, so that a program that ends without leaving the context does end.
        self._thread = threading.Thread(target=self._run, name="hybrid browser rig", daemon=True)

    def __enter__(self) -> _T:
        self._thread.start()
        try:
            return self._ready.result()
        except BaseException:  # an interrupted wait too: `with` does not leave what was not entered
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self._ended.result()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start work on the loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Do work on the loop and wait for its result."""
        doing = self.begin(work)
        try:
            result: _R = doing.result()
        except BaseException:  # an interrupted wait too: nobody waits for the work any more
            doing.cancel()
            raise
        return result

    def _leave(self) -> None:
        if self._loop is not None and self._stop is not None and not self._ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # whatever it is, it is raised where somebody waits
            (self._ended if self._ready.done() else self._ready).set_exception(error)
        if not self._ended.done():
            self._ended.set_result(None)

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._context as entered:
            self._ready.set_result(entered)
            await self._stop.wait()
