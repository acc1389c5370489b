"""Over a real socket: decisions as the inspector's, refusals in one line, and no harm done."""

import base64
import errno
import io
import os
import socket

import numpy as np
import pytest
from PIL import Image
from requesting import MARK, form, inspector, photos, png, serving

from fewshot_ad.image_files import ImageStream
from fewshot_ad.serving import gate
from fewshot_ad.serving.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.Spooled:ResourceWarning")


@pytest.fixture(scope="module")
def client():
    """Of a service with small limits."""
    with serving(inspector(), limits=Limits(body_bytes=50_000, photos=3, pixels=1000)) as client:
        yield client


def test_the_answer_is_what_the_inspector_says(client):
    wanted = inspector().predict([ImageStream("x", io.BytesIO(each)) for each in photos()[-3:]])
    status, answer = client.predict(*photos()[-3:])
    assert status == 200
    assert answer["part"] == "part"
    assert answer["threshold"] == inspector().threshold
    assert answer["promise"] == inspector().promise
    for number, (found, verdict) in enumerate(zip(answer["results"], wanted, strict=True)):
        expected = verdict.as_row() | {"name": f"{number}.png", "warning": None, "overlay": None}
        del expected["image"]
        assert found == expected
        assert found["decision"] == "NOT OK"


def test_an_overlay_is_the_inspectors_to_the_pixel(client):
    verdict = inspector().predict(ImageStream("x", io.BytesIO(photos()[-1])))[0]
    _, answer = client.predict(photos()[-1], query="?overlay=true")
    content = base64.b64decode(answer["results"][0]["overlay"])
    np.testing.assert_array_equal(Image.open(io.BytesIO(content)), verdict.overlay())


def test_a_photo_unlike_the_normals_is_judged_with_a_warning(client):
    grey = np.full((20, 20), 120, dtype=np.uint8)
    (found,) = client.predict(png(grey))[1]["results"]
    assert found["warning"].startswith("0.png is 20x20 grey, the normals were 32x24 colour: ")


@pytest.mark.parametrize(
    ("contents", "status", "line"),
    [
        ([b"hello"], 422, "0.png cannot be read as an image: its content is of no known image"),
        ([b""], 422, "0.png cannot be read as an image: the file is empty"),
        ([photos()[0], photos()[0][:-300]], 422, "1.png cannot be read as an image: "),
        ([png(np.zeros((40, 26), dtype=np.uint8))], 413, "0.png has 1040 pixels; send photos of"),
        ([photos()[0]] * 4, 413, "4 photos were sent at once; send 3 at most"),
        ([b"x" * 60_000], 413, "more than 0.04768 MB were sent at once"),
        ([], 422, "no photo came; send one or several as multipart/form-data, in fields named"),
    ],
    ids=["text", "empty", "truncated", "bomb", "many", "large", "none"],
)
def test_what_is_wrong_is_refused_in_one_line(client, contents, status, line):
    found_status, found_line = client.refusal(*contents)
    assert found_line.startswith(line)
    assert found_status == status
    assert client.predict(photos()[0])[0] == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (form(b"x", field="image"), {}, 422),
        (b'{"images": []}', {"Content_Type": "application/json"}, 422),
        (b"no form at all", {}, 400),
        (form(photos()[0]), {"Content_Type": "multipart/form-data"}, 400),
        (MARK + b'Content-Disposition: form-data; name="images"\r\n\r\nx\r\n--mark--', {}, 422),
    ],
    ids=["field", "json", "garbage", "no boundary", "no file"],
)
def test_other_bodies_are_refused_in_one_line(client, body, headers, status):
    headers = {"Content_Type": "multipart/form-data; boundary=mark"} | headers
    found, _, answer = client.send("POST", "/predict", body, **headers)
    assert found == status
    assert isinstance(answer["detail"], str)
    assert "\n" not in answer["detail"]


def test_odd_names_and_options_are_refused_in_one_line(client):
    body = form(b"hello", names=["a\x1bb%0Ac.png"])
    kind = "multipart/form-data; boundary=mark"
    status, _, answer = client.send("POST", "/predict", body, Content_Type=kind)
    assert (status, answer["detail"][:12]) == (422, "a b%0Ac.png ")
    status, answer = client.predict(photos()[0], query="?overlay=perhaps")
    assert (status, answer["detail"][:9]) == (422, "overlay: ")
    assert client.send("GET", "/predict")[0] == 405
    assert client.send("GET", "/nothing")[0] == 404


def raw(client, head, chunks):
    """Send by hand until the server has answered; its status line, and how much it was sent."""
    sent = 0
    with socket.create_connection(client.address, timeout=20) as connection:
        connection.sendall(head)
        for chunk in chunks:
            connection.sendall(chunk)
            sent += len(chunk)
            connection.settimeout(0.001)
            try:
                return connection.recv(4096).split(b"\r\n")[0], sent
            except TimeoutError:
                connection.settimeout(20)
        return connection.recv(4096).split(b"\r\n")[0], sent


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=mark\r\n"


def test_a_body_without_a_length_is_refused_while_it_comes(client):
    part = form(b"x" * 1000)[: -len(b"\r\n--mark--\r\n")]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part), *[b"3e8\r\n" + b"x" * 1000 + b"\r\n"] * 10_000]
    status, sent = raw(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert status.startswith(b"HTTP/1.1 413 ")
    assert sent < 5_000_000


def test_a_length_is_refused_before_anything_comes(client):
    status, sent = raw(client, HEAD + b"Content-Length: 99999999\r\n\r\n", [])
    assert status.startswith(b"HTTP/1.1 413 ")
    assert sent == 0


def test_a_body_longer_than_it_says_does_no_harm(client):
    body = form(photos()[0])
    head = HEAD + b"Content-Length: 200\r\n\r\n"
    assert raw(client, head, [body])[0].startswith(b"HTTP/1.1 4")
    assert client.predict(photos()[0])[0] == 200


def test_one_who_sends_too_slowly_is_sent_away(monkeypatch):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.2)
    with serving(inspector()) as client:
        head = HEAD + b"Content-Length: 999\r\n\r\n" + MARK
        assert raw(client, head, [])[0].startswith(b"HTTP/1.1 408 ")
        assert client.counted('fewshot_ad_requests_total{status="408"}') == 1


def test_a_full_disk_is_not_the_clients_fault(client, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", fail)
    status, line = client.refusal(photos()[0])
    assert (status, line) == (503, "no room for what was sent: No space left on device; come back")
    monkeypatch.undo()
    assert client.predict(photos()[0])[0] == 200


def test_one_who_hangs_up_does_no_harm(client):
    with socket.create_connection(client.address) as connection:
        connection.sendall(HEAD + b"Content-Length: 9999\r\n\r\n" + MARK)
    assert client.predict(photos()[0])[0] == 200


def test_the_openapi_document_declares_answers_and_refusals(client):
    document = client.send("GET", "/openapi.json")[2]
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert {*responses} == {"200", "400", "401", "408", "413", "422", "503"}
    reference = responses["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/Refusal")
    photo = document["components"]["schemas"]["PhotoAnswer"]["properties"]
    assert {*photo} == {*client.predict(photos()[0])[1]["results"][0]}
