"""The thread that judges: the same bits in company, few pixels at once, nobody forgotten."""

import io
import threading

import numpy as np
import pytest
from painted import MeanColour, Painted
from PIL import Image
from scipy.stats import mannwhitneyu

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.image_files import ImageStream
from fewshot_ad.inspection import Inspector
from fewshot_ad.serving.judging import Judging

PLATES = Painted(n_train=20)
PIXELS = 24 * 32
MADE = {
    "residual_distance": {"neighbourhood": 3},
    "patchcore": {"unit_length": True, "blur": 1.0},
    "padim": {"channels": 20, "levels": (1, 2)},
}


def photos(class_name="plate"):
    samples = [*PLATES.train(class_name)[6:], *PLATES.test(class_name)]
    return [PLATES.read_image(sample) for sample in samples]


def stream(pixels, name="a"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return ImageStream(name, content)


def normals():
    return [PLATES.read_image(sample) for sample in PLATES.train("plate")[:6]]


class Held(MeanColour):
    """Says when it begins to judge, and waits until it may."""

    def hold(self):
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        return self

    def predict(self, images):
        if hasattr(self, "begun"):
            self.begun.set()
            assert self.may_go_on.wait(10)
        if images.flatten(1).mean(dim=1).max() > 2:
            raise ArithmeticError("too bright for this method")
        return super().predict(images)


@pytest.fixture
def held():
    """A thread that has begun with a first photo, the batches it has seen, and the way on."""
    inspector = Inspector.from_normals(normals(), Held())
    method = inspector.method.hold()
    batches = []
    judging = Judging(inspector, pixels=3 * PIXELS, on_batch=batches.append)
    first = judging.submit(stream(photos()[0]), PIXELS, lambda photo, verdict: verdict)
    assert method.begun.wait(10)
    yield judging, batches, method.may_go_on
    method.may_go_on.set()
    judging.close()
    assert first.result().decision in ("OK", "NOT OK")


def everything(photo, verdict):
    return verdict.score, verdict.p_value, verdict.decision, verdict.regions, verdict.anomaly_map


@pytest.mark.filterwarnings("ignore:.* stands out")
@pytest.mark.parametrize("method", MADE)
def test_a_photo_has_the_same_bits_alone_and_in_company(method):
    settings = {"backbone": "random:tiny", "preprocess": Preprocess(size=32), **MADE[method]}
    inspector = Inspector.from_normals(normals(), method, **settings)
    alone = [inspector.predict(each)[0] for each in photos()]
    batches = []
    judging = Judging(inspector, pixels=10**6, on_batch=batches.append)
    answers = [judging.submit(stream(each), PIXELS, everything) for each in photos()]
    for answer, wanted in zip(answers, alone, strict=True):
        *numbers, anomaly_map = answer.result(timeout=60)
        assert tuple(numbers) == everything(None, wanted)[:-1]
        np.testing.assert_array_equal(anomaly_map, wanted.anomaly_map)
    judging.close()
    assert sum(batches) == len(photos())
    assert max(batches) > 1


def test_no_more_pixels_are_decoded_at_once_than_allowed(held):
    judging, batches, may_go_on = held
    sizes = [1, 1, 1, 1, 9, 1, 1]  # of three that are allowed
    answers = [judging.submit(stream(photos()[1]), n * PIXELS, everything) for n in sizes]
    assert len(judging) == len(sizes)
    may_go_on.set()
    judging.close()
    assert all(answer.done() for answer in answers)
    assert batches == [1, 3, 1, 1, 2]
    assert len(judging) == 0


def test_what_waits_is_judged_before_the_end_and_nothing_after_it(held):
    judging, _, may_go_on = held
    answers = [judging.submit(stream(each), PIXELS, everything) for each in photos()]
    threading.Timer(0.05, may_go_on.set).start()
    judging.close()
    assert all(answer.done() for answer in answers)
    assert not judging.is_alive
    with pytest.raises(RuntimeError, match="any more"):
        judging.submit(stream(photos()[0]), PIXELS, everything)


def test_a_photo_that_cannot_be_judged_or_read_does_not_spoil_the_others(held):
    judging, _, may_go_on = held
    white = np.full((24, 32, 3), 255, dtype=np.uint8)
    closed = stream(white)
    closed.content.close()
    given = [stream(photos()[1]), stream(white), ImageStream("b", io.BytesIO(b"text")), closed]
    answers = [judging.submit(each, PIXELS // 2, everything) for each in given]
    broken = judging.submit(stream(photos()[2]), PIXELS // 2, lambda *_: 1 / 0)
    may_go_on.set()
    assert answers[0].result(10)[2] == "OK"
    assert isinstance(answers[1].exception(10), ArithmeticError)
    assert isinstance(answers[2].exception(10), FewShotError)
    assert isinstance(answers[3].exception(10), ValueError)
    assert isinstance(broken.exception(10), ZeroDivisionError)
    assert judging.submit(stream(photos()[1]), PIXELS, everything).result(10)[2] == "OK"


def test_nobody_is_judged_who_does_not_wait_any_more(held):
    judging, batches, may_go_on = held
    gone, there = (judging.submit(stream(photos()[1]), PIXELS, everything) for _ in range(2))
    assert gone.cancel()
    may_go_on.set()
    assert there.result(10)
    assert batches == [1, 1]


def test_drift_is_the_rank_test_of_the_last_scores():
    inspector = Inspector.from_normals(normals(), MeanColour())
    judging = Judging(inspector, pixels=PIXELS)
    answers = [judging.submit(stream(each), PIXELS, everything) for each in photos()[:9]]
    scores = [answer.result(10)[0] for answer in answers]
    assert judging.drift_p_value() is None
    scores.append(judging.submit(stream(photos()[9]), PIXELS, everything).result(10)[0])
    wanted = mannwhitneyu(scores, inspector.calibration.scores).pvalue
    assert judging.drift_p_value() == pytest.approx(wanted)
    judging.close()
