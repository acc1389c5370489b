"""Who is let in, and how much of what they send: decided before and while a body is read.

All of it is enforced on what really comes; what a request says of its own length is only a reason
to refuse it sooner.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException  # pyright: ignore[reportMissingImports]
from starlette.responses import JSONResponse  # pyright: ignore[reportMissingImports]

from fewshot_ad.serving.limits import Limits, OverLimitError
from fewshot_ad.serving.metrics import Metrics

BODY_SECONDS = 60.0  # one who sends more slowly keeps others out
RETRY_AFTER = "1"
OPEN, GUARDED = "/healthz", "/predict"

Headers = dict[bytes, bytes]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gate:
    """The outermost layer of the service, as ASGI has them.

    Args:
        app: what is behind.
        limits: of a body.
        queue: how many requests to ``/predict`` are inside at once.
        token: that all requests must bear, but those for health.
        metrics: are told of every request to ``/predict``.
    """

    def __init__(
        self, app: Any, *, limits: Limits, queue: int, token: str | None, metrics: Metrics
    ) -> None:
        self._app, self._limits, self._queue, self._metrics = app, limits, queue, metrics
        self._token = None if token is None else token.encode()
        self._inside = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http" or scope["path"] == OPEN:
            await self._app(scope, receive, send)
        elif scope["path"] == GUARDED:
            await self._measure(scope, receive, send)
        elif await self._passes(scope, receive, send, self._check_token):
            await self._app(scope, self._counted(receive), send)

    async def _measure(self, scope: Message, receive: Receive, send: Send) -> None:
        status, since = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if await self._passes(scope, receive, noting, self._check_all):
                await self._let_in(scope, receive, noting)
        finally:
            self._metrics.requests.labels(str(status)).inc()
            self._metrics.seconds.observe(time.perf_counter() - since)

    async def _passes(
        self, scope: Message, receive: Receive, send: Send, check: Callable[[Headers], None]
    ) -> bool:
        """Whether nothing is wrong with the head of a request; it is refused otherwise."""
        try:
            check(dict(scope["headers"]))
        except HTTPException as error:
            refusal = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            await refusal(scope, receive, send)
            return False
        return True

    async def _let_in(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand a request with photos on; only these take places in the queue."""
        self._inside += 1
        try:
            await self._app(scope, self._counted(receive), send)
        finally:
            self._inside -= 1

    def _check_all(self, headers: Headers) -> None:
        self._check_token(headers)
        declared = headers.get(b"content-length", b"")
        if declared.isdigit():
            self._check_bytes(int(declared))
        if self._inside >= self._queue:
            raise HTTPException(
                503,
                f"{self._queue} requests wait already; come back in {RETRY_AFTER} s",
                {"Retry-After": RETRY_AFTER},
            )

    def _check_token(self, headers: Headers) -> None:
        if self._token is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise HTTPException(
                401,
                "expected the header 'Authorization: Bearer TOKEN' with the token of the service",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_bytes(self, n_bytes: int) -> None:
        try:
            self._limits.check_bytes(n_bytes)
        except OverLimitError as error:
            raise HTTPException(413, str(error)) from error

    def _counted(self, receive: Receive) -> Receive:
        """The same, until more bytes have come than may, or the last one is too late."""
        n_bytes, is_whole = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counting() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:  # what comes now is that the client hung up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the body took more than {BODY_SECONDS:g} s") from error
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            self._check_bytes(n_bytes)
            return message

        return counting
