import numpy as np
import pytest
import torch
from listening import catch_trainings
from plates import PLAIN, SIZE, as_images, plate_support, plates

from fewshot_ad.methods import ganomaly
from fewshot_ad.methods.ganomaly import GANomaly
from fewshot_ad.parts import image_methods
from fewshot_ad.parts.discriminator import ImageDiscriminator


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


def test_the_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    judges = []

    def noted(*given):
        judges.append(ImageDiscriminator(*given))
        return judges[-1]

    monkeypatch.setattr(ganomaly, "ImageDiscriminator", noted)
    caught = catch_trainings(monkeypatch, image_methods)
    settings = {"adversarial_weight": 2.0, "colour_weight": 3.0, "code_weight": 4.0}
    small(shift=0.0, turn=0.0, batch_size=2, **settings).fit(plate_support(2))
    network, loss, _ = caught[0]
    before = judges[0].head.weight.clone()
    found = loss(torch.arange(2), torch.Generator()).item()
    assert not torch.equal(before, judges[0].head.weight)  # it has learned before it is asked
    judges[0].requires_grad_(requires_grad=False)
    images = plates(2)
    code = network.encoder(images)
    rebuilt = network.decoder(code)
    gaps = [judges[0].body(rebuilt) - judges[0].body(images), network.second(rebuilt) - code]
    features, codes = (float(gap.square().mean()) for gap in gaps)
    colours = float((rebuilt - images).abs().mean())
    assert found == pytest.approx(2 * features + 3 * colours + 4 * codes, rel=1e-4)
