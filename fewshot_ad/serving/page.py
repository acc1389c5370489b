"""A page for people: normal photos in, decisions on new ones out, in a browser.

It is made with Gradio, which is imported only here. Nothing is asked of the network: no analytics,
no shared link, no fonts; the browser is told to refuse it, too. Every visitor has a ``Session``.
"""

import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.serving.listening import address_of, is_loopback, listen
from fewshot_ad.serving.page_events import Work
from fewshot_ad.serving.page_guard import Guard
from fewshot_ad.serving.page_layout import lay_out
from fewshot_ad.serving.page_session import Setup
from fewshot_ad.serving.page_views import head

SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
LAST_SECONDS = 2  # for requests that go on when the page is stopped; open pages always have one
HOST, PORT = "127.0.0.1", 7860
THEME = {
    "body_background_fill": ("#fdfdfb", "#15171a"),
    "body_text_color": ("#1d1c1a", "#e9e6e0"),
}


def serve_page(
    setup: Setup,
    inspector: Inspector | None = None,
    *,
    host: str = HOST,
    port: int = PORT,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve the page until it is interrupted; what visitors sent is removed then.

    Args:
        setup: how parts are learned, and how much may be sent.
        inspector: a part that every visitor begins with.
        host: what to listen on; 127.0.0.1 is this machine alone.
        port: 0 takes any that is free.
        on_ready: told the address.

    Raises:
        FewShotError: Gradio is not installed, or the address cannot be listened on.
    """
    load_gradio()
    uvicorn = import_module("uvicorn")
    if not is_loopback(host):
        warnings.warn(
            f"{host} can be reached from other machines, and nobody is asked who they are: "
            "everybody there may use the page; keep to --host 127.0.0.1 if that is not wanted",
            stacklevel=2,
        )
    with (
        listen(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="fewshot-ad-page-") as sent,
    ):
        os.environ["GRADIO_TEMP_DIR"] = sent
        app = page_app(setup, inspector, host)
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=LAST_SECONDS
        )
        on_ready(address_of(listening))
        with suppress(KeyboardInterrupt), _ending_by_signal():
            uvicorn.Server(config).run(sockets=[listening])


def page_app(setup: Setup, inspector: Inspector | None = None, host: str = HOST) -> Guard:
    """The page as an ASGI application.

    Args:
        setup: how parts are learned, and how much may be sent.
        inspector: a part that every visitor begins with.
        host: what it will listen on; on this machine alone, other names of it are refused.

    Raises:
        FewShotError: Gradio is not installed.
    """
    gradio = load_gradio()
    app = gradio.mount_gradio_app(
        import_module("fastapi").FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        lay_out(gradio, Work(setup, inspector)),
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size=setup.limits.body_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=_theme(gradio),
        head=head(),
    )
    return Guard(app, setup.limits, is_local=is_loopback(host))


def load_gradio() -> Any:
    """The library, silenced.

    Raises:
        FewShotError: it is not installed.
    """
    if find_spec("gradio") is None:
        raise FewShotError("the page needs Gradio: pip install 'fewshot-ad[app]'")
    os.environ.update(SILENT)
    return import_module("gradio")


@contextmanager
def _ending_by_signal() -> Generator[None]:
    """The server passes on the signal that ended it, which must not kill before all is cleaned."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _theme(gradio: Any) -> Any:
    """Gradio's plainest, in the fonts of the system; colours are in page.css."""
    plain = gradio.themes.Base(
        radius_size="sm",
        font=["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Consolas", "Liberation Mono", "monospace"],
    )
    light = {name: pair[0] for name, pair in THEME.items()}
    dark = {f"{name}_dark": pair[1] for name, pair in THEME.items()}
    return plain.set(**light, **dark)
