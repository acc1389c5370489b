"""What the service answers, as its OpenAPI document declares it."""

import base64
import io
from typing import Literal

from PIL import Image
from pydantic import BaseModel, Field

from fewshot_ad.inspection.verdicts import Verdict


class RegionAnswer(BaseModel):
    """A connected part of the map above its level, in pixels of the photo as viewers show it."""

    left: int
    top: int
    right: int = Field(description="not included")
    bottom: int = Field(description="not included")
    area: int = Field(description="pixels that are part of it")
    peak: float = Field(description="highest value of the map in it")


class PhotoAnswer(BaseModel):
    """One photo, judged."""

    name: str = Field(description="the file name that was sent")
    decision: Literal["OK", "NOT OK"]
    score: float = Field(description="higher is more anomalous")
    p_value: float = Field(description="how rarely a normal photo scores as high")
    regions: list[RegionAnswer] = Field(description="the highest peak first")
    warning: str | None = Field(description="set where the photo is unlike the normals in kind")
    overlay: str | None = Field(description="base64 of a PNG of the photo with its map on it")


class Answer(BaseModel):
    """All photos of a request, in the order in which they were sent."""

    part: str
    threshold: float = Field(description="photos that score more are NOT OK")
    promise: str = Field(description="what may be expected of false alarms")
    results: list[PhotoAnswer]


class Drift(BaseModel):
    """Whether recent scores are unlike those of the normals, by a rank test."""

    p_value: float | None = Field(description="null until enough photos were judged")
    has_changed: bool = Field(description="camera, light or part have; look, then fit again")


class Health(BaseModel):
    """How the service is."""

    status: Literal["ok", "stopped"]
    part: str
    waiting: int = Field(description="photos that are not judged yet")
    drift: Drift


class Refusal(BaseModel):
    """Why there is no decision, in one line."""

    detail: str


def answer_of(verdict: Verdict, warning: str | None, *, with_overlay: bool) -> PhotoAnswer:
    """What is sent of a verdict; its map only as an overlay, if that is wanted."""
    return PhotoAnswer(
        name=verdict.name,
        decision="NOT OK" if verdict.is_anomalous else "OK",
        score=verdict.score,
        p_value=verdict.p_value,
        regions=[RegionAnswer(**region._asdict()) for region in verdict.regions],
        warning=warning,
        overlay=_overlay(verdict) if with_overlay else None,
    )


def _overlay(verdict: Verdict) -> str:
    content = io.BytesIO()
    Image.fromarray(verdict.overlay()).save(content, "PNG", compress_level=1)  # others are waiting
    return base64.b64encode(content.getvalue()).decode()
