"""What stands before the page: large bodies, strange hosts and other sites stay out.

A page on this machine alone can still be reached by whatever site its user has open in another
tab: by a name that is made to point here, or by a form that is sent here. Both are refused. What
is answered tells the browser to ask nobody else for anything.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fewshot_ad.serving.limits import MB, Limits
from fewshot_ad.serving.listening import is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FORMS = MB // 4  # what separates the photos of a body from each other
READING = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """An application behind a guard.

    Args:
        app: the application.
        limits: of what is sent.
        is_local: it is for this machine alone, and is asked by such names alone.
    """

    def __init__(self, app: App, limits: Limits, *, is_local: bool) -> None:
        self._app, self._limits, self._is_local = app, limits, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _say(send, *refusal)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and line, or None if the request may pass."""
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        if self._is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 400, "this page is for the machine alone that it runs on"
        if scope["method"] in READING:
            return None
        if "origin" in headers and urlsplit(headers["origin"]).netloc != host:
            return 403, "another site has no business here"
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return 411, "say how long the body is"
        if int(length) > self._limits.body_bytes + FORMS:
            return 413, f"send {self._limits.body_bytes / MB:.4g} MB at once at most"
        return None


async def _say(send: Send, status: int, line: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": line.encode()})
