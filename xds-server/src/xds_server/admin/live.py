"""Pages that follow the state: a stream of events for each open page, and nothing at all without one."""

import asyncio
import hashlib
import time
from collections.abc import Callable

from aiohttp import web

MAX_VIEWERS = 100
"""Pages that are open at once; one more is served, and does not follow."""
INTERVAL = 1.0
"""Seconds between two looks at the state; a page that shows the same is sent nothing."""
KEEP_ALIVE = 15.0
"""Seconds after which something is sent in any case, so that proxies do not close the connection."""
MAX_KEPT = 200


class Live:
    """Sends what pages show, whenever that changed.

    Args:
        interval: Seconds between two looks.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._viewers = 0
        self._closing = asyncio.Event()
        self._kept: dict[str, tuple[float, str]] = {}

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()

    async def serve(self, request: web.Request, key: str, render: Callable[[], str]) -> web.StreamResponse:
        """Serves one page until it is closed.

        Args:
            request: For the stream.
            key: Equal for pages that show the same.
            render: Returns the HTML as it is now.
        """
        if self._viewers >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(
                text=f"{MAX_VIEWERS} pages are open already; reload to see changes\n"
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        self._viewers += 1
        try:
            await response.prepare(request)
            await self._follow(response, key, render)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._viewers -= 1
        return response

    async def _follow(self, response: web.StreamResponse, key: str, render: Callable[[], str]) -> None:
        shown, sent = "", time.monotonic()
        while not self._closing.is_set():
            html = self._render(key, render)
            digest = hashlib.sha256(html.encode()).hexdigest()
            now = time.monotonic()
            if digest != shown:
                await response.write(_event(html))
                shown, sent = digest, now
            elif now - sent > KEEP_ALIVE:
                await response.write(b": nothing new\n\n")
                sent = now
            try:
                await asyncio.wait_for(self._closing.wait(), self._interval)
            except TimeoutError:
                continue

    def _render(self, key: str, render: Callable[[], str]) -> str:
        """The HTML, made once for all pages that show the same."""
        now = time.monotonic()
        at, html = self._kept.get(key, (float("-inf"), ""))
        if now - at < self._interval / 2:
            return html
        html = render()
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[key] = (now, html)
        return html


def _event(html: str) -> bytes:
    """A message of an event stream: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    return "".join(f"data: {line}\n" for line in html.splitlines()).encode() + b"\n"
