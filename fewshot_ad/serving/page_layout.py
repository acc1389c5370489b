"""What lies where on the page."""

from typing import Any, NamedTuple

from fewshot_ad.inspection.thresholds import FAR
from fewshot_ad.serving.page_events import FARS, Work, connect
from fewshot_ad.serving.page_views import findings, headline, masthead, step_head

PHOTOS = [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"]
CLEAN_EVERY, KEPT = 600, 3600  # seconds; of what was sent
WAITING = 32  # requests at most; more are told to come later


class Feed(NamedTuple):
    """Where photos are dropped, as Gradio's components."""

    normals: Any
    name: Any
    learn: Any
    part: Any
    new: Any


class Shown(NamedTuple):
    """What there is to see, as Gradio's components; the session is seen by nobody."""

    session: Any
    headline: Any
    far: Any
    save: Any
    file: Any
    findings: Any


def lay_out(gradio: Any, work: Work) -> Any:
    """The page as Gradio's blocks; the library is given, since it is imported late."""
    clean = (CLEAN_EVERY, KEPT)
    with gradio.Blocks(title="Inspection", analytics_enabled=False, delete_cache=clean) as blocks:
        gradio.HTML(masthead())
        with gradio.Row(elem_id="bench", equal_height=False):
            with gradio.Column(scale=2, min_width=280, elem_id="feed"):
                feed = _feed(gradio)
            with gradio.Column(scale=5, min_width=320, elem_id="shown"):
                shown = _shown(gradio, work)
        connect(gradio, blocks, work, feed, shown)
    return blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def _feed(gradio: Any) -> Feed:
    gradio.HTML(step_head("1", "Normal photos", "Four or more, as they come off the line."))
    normals = _photos(gradio, "Normal photos", "normals")
    name = gradio.Textbox("part", label="Name of the part", max_lines=1, elem_id="name")
    learn = gradio.Button("Learn this part", variant="primary", elem_id="learn")
    part = gradio.UploadButton("Open a saved part", file_types=[".fsad"], size="sm", elem_id="open")
    gradio.HTML(step_head("2", "New photos", "Judged as soon as they are here."))
    return Feed(normals, name, learn, part, _photos(gradio, "New photos", "new"))


def _photos(gradio: Any, label: str, name: str) -> Any:
    return gradio.File(
        file_count="multiple", file_types=PHOTOS, label=label, elem_id=name, height=190
    )


def _shown(gradio: Any, work: Work) -> Shown:
    blank = work.begin()
    with gradio.Column(elem_id="verdict"):
        top = gradio.HTML(headline(blank), elem_id="headline")
        with gradio.Row(elem_id="rule"):
            far = gradio.Slider(
                *FARS,
                100 * FAR,
                step=0.1,
                label="Wanted rate of false alarms, % of normal parts",
                elem_id="far",
                scale=4,
            )
            save = gradio.Button("Save the part", size="sm", interactive=False, elem_id="save")
    file = gradio.DownloadButton("part.fsad", visible="hidden", elem_id="file")
    below = gradio.HTML(findings(blank), elem_id="findings")
    return Shown(gradio.State(None), top, far, save, file, below)
