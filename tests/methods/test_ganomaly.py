import numpy as np
import pytest
import torch
from plates import PLAIN, SIZE, as_images, plate_support, plates

from fewshot_ad.methods.ganomaly import GANomaly


def small(**changes) -> GANomaly:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 4}
    return GANomaly(**(settings | {"blur": 0.0} | changes))


def test_the_score_is_the_gap_of_codes_and_the_map_that_of_colours() -> None:
    method, colours = small().fit(plate_support(2)), plates(2, seed=5)
    found = method.predict(as_images(colours))
    assert method.networks_ is not None
    for image, score, ours in zip(colours, found.image_score, found.anomaly_map, strict=True):
        code = method.networks_.encoder(image[None])
        rebuilt = method.networks_.decoder(code)
        gaps = (method.networks_.second(rebuilt) - code)[0].double().numpy()
        assert float(score) == pytest.approx(np.abs(gaps).sum() / len(gaps), rel=1e-3)
        expected = np.abs((rebuilt[0] - image).double().numpy()).mean(axis=0)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_training_brings_colours_and_codes_together() -> None:
    support = plate_support(4)
    few, many = (
        small(steps=steps).fit(support).predict(support.images).anomaly_map.mean()
        for steps in (1, 60)
    )
    assert many < 0.8 * few
    loose, tight = (
        small(steps=60, code_weight=weight).fit(support).predict(support.images).image_score.mean()
        for weight in (0.0, 50.0)
    )
    assert tight < 0.5 * loose


def test_weights_of_the_adversary_count() -> None:
    support = plate_support(2)
    scores = [
        small(adversarial_weight=weight).fit(support).predict(support.images).image_score
        for weight in (0.0, 1.0)
    ]
    assert not torch.equal(*scores)
