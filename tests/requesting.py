"""A service on a real socket in a thread, and requests to it by hand, without a library's help."""

import gc
import http.client
import io
import json
import threading
import time
from contextlib import closing, contextmanager
from importlib import import_module

import pytest
from painted import MeanColour, Painted
from PIL import Image

from fewshot_ad.inspection import Inspector
from fewshot_ad.serving.listening import listen

EXTRA = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")
*_, uvicorn = [pytest.importorskip(name, reason="the extra [serve] is missing") for name in EXTRA]
service = import_module("fewshot_ad.serving.service")

PLATES = Painted(n_train=12)
MARK = b"--mark\r\n"


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def photos():
    samples = [*PLATES.train("plate")[6:], *PLATES.test("plate")]
    return [png(PLATES.read_image(sample)) for sample in samples]


def inspector(method=None, **settings):
    normals = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:6]]
    return Inspector.from_normals(normals, method or MeanColour(), **settings)


def form(*contents, field="images", names=None):
    """A body of multipart/form-data, by hand."""
    names = names or [f"{number}.png" for number in range(len(contents))]
    head = 'Content-Disposition: form-data; name="{}"; filename="{}"\r\n\r\n'
    parts = [
        MARK + head.format(field, name).encode() + content + b"\r\n"
        for name, content in zip(names, contents, strict=True)
    ]
    return b"".join(parts) + b"--mark--\r\n"


@contextmanager
def serving(judge, **settings):
    """A server in a thread; gives what sends requests to it."""
    app = service.create_app(judge, **settings)
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(listening.getsockname())
        finally:
            server.should_exit = True
            thread.join()
            gc.collect()  # of broken-off uploads, whose files Starlette leaves to the collector


class Client:
    """Requests on connections of their own."""

    def __init__(self, address):
        self.address = address

    def send(self, method, path, body=None, **headers):
        """Status, headers and content of the answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection(*self.address, timeout=30)) as connection:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            content = answer.read()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json else content.decode()

    def predict(self, *contents, query="", **headers):
        """Status and JSON of the answer to photos."""
        body = form(*contents)
        headers.setdefault("Content_Type", "multipart/form-data; boundary=mark")
        status, _, answer = self.send("POST", f"/predict{query}", body, **headers)
        return status, answer

    def refusal(self, *contents, **headers):
        """Status and line of a refusal."""
        status, answer = self.predict(*contents, **headers)
        assert "\n" not in answer["detail"]
        return status, answer["detail"]

    def counted(self, name):
        """A value of /metrics."""
        lines = self.send("GET", "/metrics")[2].splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))


def until(is_true):
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
