"""An inspector as a service for machines: photos in by HTTP, decisions out as JSON.

============ ==================================================================
``/predict``      POST of one or several photos: decisions, overlays if wanted
``/healthz``      whether it works, how many photos wait, whether scores drift
``/metrics``      for Prometheus
``/openapi.json`` all of this, for programs that write clients
============ ==================================================================

What is wrong with a request is said in one line, with a status of 4xx. What is accepted is
answered: requests beyond the queue are told at once to come back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from socket import socket
from typing import Annotated, Any

import uvicorn  # pyright: ignore[reportMissingImports]
from fastapi import (  # pyright: ignore[reportMissingImports]
    FastAPI,
    File,
    Query,
    Request,
    Response,
    Security,
    UploadFile,
)
from fastapi.concurrency import run_in_threadpool  # pyright: ignore[reportMissingImports]
from fastapi.exceptions import RequestValidationError  # pyright: ignore[reportMissingImports]
from fastapi.responses import JSONResponse  # pyright: ignore[reportMissingImports]
from fastapi.security import HTTPBearer  # pyright: ignore[reportMissingImports]
from prometheus_client import CONTENT_TYPE_LATEST  # pyright: ignore[reportMissingImports]
from starlette.exceptions import HTTPException  # pyright: ignore[reportMissingImports]

from fewshot_ad import __version__
from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.drift import ALARM
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.photos import Photo, unlike_normals
from fewshot_ad.inspection.verdicts import Verdict
from fewshot_ad.serving.answers import Answer, Drift, Health, PhotoAnswer, Refusal, answer_of
from fewshot_ad.serving.gate import Gate
from fewshot_ad.serving.judging import Judging
from fewshot_ad.serving.limits import Limits, OverLimitError, sent_photo
from fewshot_ad.serving.metrics import Metrics

QUEUE = 64
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no proper multipart/form-data."},
    401: {"model": Refusal, "description": "The token is missing or wrong."},
    408: {"model": Refusal, "description": "The body came too slowly."},
    413: {"model": Refusal, "description": "Too many bytes, photos or pixels."},
    422: {"model": Refusal, "description": "No photo, or one that cannot be read."},
    503: {"model": Refusal, "description": "The queue is full, see Retry-After; or the disk."},
}

Photos = Annotated[list[UploadFile], File(description="one photo or several")]
Overlay = Annotated[bool, Query(description="send the photos back with their maps on them")]


class Service:
    """What answers requests: an inspector, the thread that owns it, limits and counts."""

    def __init__(self, inspector: Inspector, limits: Limits) -> None:
        self.metrics = Metrics()
        self._limits = limits
        self._part, self._views = inspector.name, frozenset(inspector.views)
        self._threshold, self._promise = inspector.threshold, inspector.promise
        self.judging = Judging(
            inspector, pixels=limits.pixels, on_batch=self.metrics.batches.observe
        )

    async def predict(self, images: Photos, overlay: Overlay = False) -> Answer:
        """Decide OK or NOT OK on every photo of a request; one that cannot be read refuses all."""
        self._limits.check_photos(len(images))
        photos = [sent_photo(image.filename or "", image.file) for image in images]
        pixels = await run_in_threadpool(lambda: [*map(self._limits.check_pixels, photos)])

        def finish(photo: Photo, verdict: Verdict) -> PhotoAnswer:
            self.metrics.decisions.labels(verdict.decision).inc()
            return answer_of(verdict, unlike_normals(photo, self._views), with_overlay=overlay)

        answers = [
            asyncio.wrap_future(self.judging.submit(photo, count, finish))
            for photo, count in zip(photos, pixels, strict=True)
        ]
        return Answer(
            part=self._part,
            threshold=self._threshold,
            promise=self._promise,
            results=await _all_or_the_first_error(answers),
        )

    def health(self, response: Response) -> Health:
        """Whether photos are judged at all; 503 if not."""
        p_value = self.judging.drift_p_value()
        is_alive = self.judging.is_alive
        response.status_code = 200 if is_alive else 503
        return Health(
            status="ok" if is_alive else "stopped",
            part=self._part,
            waiting=len(self.judging),
            drift=Drift(p_value=p_value, has_changed=p_value is not None and p_value < ALARM),
        )

    def expose(self) -> Response:
        """Counts and times in Prometheus's text format."""
        return Response(self.metrics.exposed(self.judging), media_type=CONTENT_TYPE_LATEST)


def create_app(
    inspector: Inspector,
    *,
    limits: Limits | None = None,
    queue: int = QUEUE,
    token: str | None = None,
) -> FastAPI:
    """The service as an ASGI application, to be run in one process.

    Args:
        inspector: nobody else may use it as long as the application lives.
        limits: of one request.
        queue: how many requests may be inside at once; the next one is told to come back.
        token: that requests must bear.
    """
    limits = limits or Limits()
    service = Service(inspector, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.judging.close)

    app = FastAPI(
        title=f"fewshot-ad: {inspector.name}",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages fetch scripts from other people's servers
        redoc_url=None,
    )
    declared = [] if token is None else [Security(HTTPBearer(auto_error=False))]  # gate checks it
    app.post("/predict", responses=REFUSALS, dependencies=declared)(service.predict)
    app.get("/healthz", responses={503: {"model": Health}})(service.health)
    app.get(
        "/metrics",
        responses={401: REFUSALS[401]},
        response_class=Response,
        dependencies=declared,
    )(service.expose)
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_middleware(Gate, limits=limits, queue=queue, token=token, metrics=service.metrics)
    return app


def run(app: FastAPI, listening: socket) -> None:
    """Answer requests until a signal comes; what has been accepted is answered before the end."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listening])


async def _all_or_the_first_error(answers: Sequence[Awaitable[PhotoAnswer]]) -> list[PhotoAnswer]:
    """All are waited for, since photos are read until then."""
    found = await asyncio.gather(*answers, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return [each for each in found if isinstance(each, PhotoAnswer)]


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": " ".join(detail.split())}, status)


def _of_user_error(_: Request, error: Exception) -> JSONResponse:
    return _refusal(413 if isinstance(error, OverLimitError) else 422, str(error))


def _of_odd_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"][0] == "body":
        line = "no photo came; send one or several as multipart/form-data, in fields named 'images'"
        return _refusal(422, line)
    return _refusal(422, f"{first['loc'][-1]}: {first['msg']}")


def _of_http(_: Request, error: Exception) -> JSONResponse:
    """What the framework or the gate refuses; a full disk is nothing that the client did wrong."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:  # a timeout is one, without number
        return _refusal(503, f"no room for what was sent: {cause.strerror}; come back")
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def _of_a_bug(_: Request, error: Exception) -> JSONResponse:
    return _refusal(500, f"{type(error).__name__}: the service failed; its log has more")


ANSWERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    FewShotError: _of_user_error,
    RequestValidationError: _of_odd_request,
    HTTPException: _of_http,
    Exception: _of_a_bug,
}
