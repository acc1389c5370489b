"""Many requests at once: none is lost, one too many is told so, who has no token gets nothing."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from painted import MeanColour
from requesting import form, inspector, photos, png, serving, until

from fewshot_ad.api import Preprocess
from fewshot_ad.image_files import ImageStream
from fewshot_ad.serving import gate
from fewshot_ad.serving.limits import Limits
from fewshot_ad.serving.metrics import Metrics


def test_fifty_clients_at_once_are_all_answered_as_if_alone():
    tiny = {"backbone": "random:tiny", "preprocess": Preprocess(size=32), "neighbourhood": 3}
    judge = inspector("residual_distance", **tiny)
    alone = [judge.predict(ImageStream("x", io.BytesIO(each)))[0] for each in photos()]
    given = [photos()[number % len(photos())] for number in range(50)]
    all_at_once = threading.Barrier(50)

    def ask(content):
        all_at_once.wait()
        return client.predict(content)

    with serving(judge) as client, ThreadPoolExecutor(50) as pool:
        answers = [*pool.map(ask, given)]
        assert client.counted('fewshot_ad_requests_total{status="200"}') == 50
        assert client.counted("fewshot_ad_batch_photos_sum") == 50
        assert client.counted("fewshot_ad_batch_photos_count") < 50
    for number, (status, answer) in enumerate(answers):
        (found,), wanted = answer["results"], alone[number % len(alone)].as_row()
        assert status == 200
        assert wanted.pop("image")
        assert {name: found[name] for name in wanted} == wanted


class Held(MeanColour):
    """Waits until it may judge."""

    def hold(self):
        self.may_go_on = threading.Event()
        return self.may_go_on

    def predict(self, images):
        if hasattr(self, "may_go_on"):
            assert self.may_go_on.wait(20)
        return super().predict(images)


@pytest.fixture
def held():
    judge = inspector(Held())
    return judge, judge.method.hold()


def test_one_too_many_is_told_to_come_back_and_the_others_are_answered(held):
    judge, may_go_on = held
    with serving(judge, queue=3) as client, ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(client.predict, photos()[0])]
        until(lambda: client.counted("fewshot_ad_batch_photos_count") == 1)
        inside += [pool.submit(client.predict, photos()[0]) for _ in range(2)]
        until(lambda: client.counted("fewshot_ad_queue_photos") == 2)
        body, kind = form(photos()[0]), "multipart/form-data; boundary=mark"
        status, headers, answer = client.send("POST", "/predict", body, Content_Type=kind)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer["detail"].startswith("3 requests wait already")
        assert client.send("GET", "/healthz")[2]["waiting"] == 2
        may_go_on.set()
        assert [answer.result()[0] for answer in inside] == [200] * 3
        assert client.predict(photos()[0])[0] == 200
        assert client.counted('fewshot_ad_requests_total{status="503"}') == 1


def test_who_looks_at_the_metrics_takes_no_place_in_the_queue():
    """Straight at the gate: one looks and is slow about it while another sends a photo."""

    async def both():
        looked, answered = asyncio.Event(), []

        async def app(scope, receive, send):
            if scope["path"] == "/metrics":
                await looked.wait()
            await send({"type": "http.response.start", "status": 200})

        async def nothing():
            return {"type": "http.request"}

        async def ask(path):
            async def send(message):
                answered.append((path, message.get("status")))

            await door({"type": "http", "path": path, "headers": []}, nothing, send)

        door = gate.Gate(app, limits=Limits(), queue=1, token=None, metrics=Metrics())
        look = asyncio.create_task(ask("/metrics"))
        await asyncio.sleep(0)
        await ask("/predict")
        looked.set()
        await look
        return answered

    assert asyncio.run(both()) == [("/predict", 200), ("/metrics", 200)]


def test_what_was_accepted_is_answered_before_the_end(held):
    judge, may_go_on = held
    with ThreadPoolExecutor(10) as pool:
        with serving(judge) as client:
            inside = [pool.submit(client.predict, photos()[0])]
            until(lambda: client.counted("fewshot_ad_batch_photos_count") == 1)
            inside += [pool.submit(client.predict, each) for each in photos()[1:10]]
            until(lambda: client.counted("fewshot_ad_queue_photos") == 9)
            threading.Timer(0.3, may_go_on.set).start()
        assert [answer.result()[0] for answer in inside] == [200] * 10


def test_a_bug_is_told_in_one_line_and_the_next_photo_is_judged():
    judge = inspector()
    predict, judge.method.predict = judge.method.predict, lambda images: 1 / 0
    with serving(judge) as client:
        status, line = client.refusal(photos()[0])
        assert (status, line[:18]) == (500, "ZeroDivisionError:")
        judge.method.predict = predict
        assert client.predict(photos()[0])[0] == 200
        assert client.counted('fewshot_ad_requests_total{status="500"}') == 1


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", "Bearer secret2", "Basic secret", "secret"]
)
def test_without_the_token_nothing_is_answered_but_health(header):
    given = {} if header is None else {"Authorization": header}
    with serving(inspector(), token="secret") as client:
        assert client.refusal(photos()[0], **given)[0] == 401
        for path in ("/metrics", "/openapi.json"):
            status, headers, _ = client.send("GET", path, **given)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client.send("GET", "/healthz")[0] == 200
        assert client.predict(photos()[0], Authorization="bearer secret")[0] == 200


def test_metrics_and_health_tell_of_drift():
    dark = png(np.full((24, 32, 3), 10, dtype=np.uint8))
    with serving(inspector(), limits=Limits(photos=40)) as client:
        assert client.send("GET", "/healthz")[2]["drift"] == {"p_value": None, "has_changed": False}
        assert client.predict(*[dark] * 40)[0] == 200
        health = client.send("GET", "/healthz")[2]
        assert health["status"] == "ok"
        assert health["drift"]["has_changed"]
        assert client.counted("fewshot_ad_drift") == 1
        assert client.counted("fewshot_ad_drift_p_value") == health["drift"]["p_value"] < 1e-4
        assert client.counted('fewshot_ad_decisions_total{decision="NOT OK"}') == 40
        assert client.counted("fewshot_ad_request_seconds_count") == 1
