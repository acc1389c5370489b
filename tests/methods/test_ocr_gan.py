import numpy as np
import pytest
import torch
from listening import catch_trainings
from plates import PLAIN, SIZE, as_images, plate_support, plates

from fewshot_ad.methods.ocr_gan import OCRGAN, part_frequencies
from fewshot_ad.parts import image_methods


def small(**changes) -> OCRGAN:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 4}
    return OCRGAN(**(settings | {"blur": 0.0} | changes))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_both_halves_make_up_the_image_and_only_one_is_fine(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    low, high = part_frequencies(images)
    torch.testing.assert_close(low + high, images)
    assert high.min() < 0  # negative detail is kept
    checks = ((torch.arange(8).view(-1, 1) + torch.arange(8)) % 2).float().expand(1, 3, 8, 8)
    coarse, fine = part_frequencies(checks)
    torch.testing.assert_close(coarse, torch.full_like(coarse, 0.5))
    torch.testing.assert_close(fine, checks - 0.5)


def test_the_score_is_the_gap_of_the_discriminators_features() -> None:
    method, colours = small().fit(plate_support(2)), plates(2, seed=5)
    found = method.predict(as_images(colours))
    assert method.generator_ is not None
    assert method.discriminator_ is not None
    for image, score, ours in zip(colours, found.image_score, found.anomaly_map, strict=True):
        rebuilt = method.generator_(image[None])
        one, other = (method.discriminator_.body(x)[0].double() for x in (rebuilt, image[None]))
        expected = sum(float(gap) ** 2 for gap in one - other) / len(one)
        assert float(score) == pytest.approx(expected, rel=1e-2)
        difference = np.abs((rebuilt[0] - image).double().numpy()).mean(axis=0)
        np.testing.assert_allclose(ours, difference, rtol=1e-3, atol=1e-5)


def test_channels_are_weighed_between_both_halves() -> None:
    method, image = small().fit(plate_support(2)), plates(1, seed=5)
    network = method.generator_
    assert network is not None
    codes = [
        coder(half) for coder, half in zip(network.encoders, part_frequencies(image), strict=True)
    ]
    logits = network.choice(codes[0] + codes[1])[0]
    expected = torch.zeros_like(image)
    for number, (decoder, code) in enumerate(zip(network.decoders, codes, strict=True)):
        share = torch.empty_like(code)
        for channel in range(method.latent):
            both = logits[channel].exp(), logits[method.latent + channel].exp()
            share[0, channel] = both[number] / (both[0] + both[1])
        expected += decoder(2 * share * code)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_training_rebuilds_the_support_better() -> None:
    support = plate_support(4)
    few, many = (
        small(steps=steps).fit(support).predict(support.images).anomaly_map.mean()
        for steps in (1, 60)
    )
    assert many < 0.8 * few


def test_the_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = catch_trainings(monkeypatch, image_methods)
    settings = {"adversarial_weight": 2.0, "colour_weight": 3.0, "feature_weight": 4.0}
    method = small(shift=0.0, turn=0.0, batch_size=2, **settings).fit(plate_support(2))
    network, loss, _ = caught[0]
    judge, images = method.discriminator_, plates(2)
    assert judge is not None
    judge.requires_grad_(requires_grad=True)
    before = judge.head.weight.clone()
    found = loss(torch.arange(2), torch.Generator().manual_seed(3)).item()
    assert not torch.equal(before, judge.head.weight)  # it has learned before it is asked
    judge.requires_grad_(requires_grad=False)
    rebuilt = network(images)
    chance = judge(rebuilt).sigmoid()
    features = float((judge.body(rebuilt) - judge.body(images)).square().mean())
    colours = float((rebuilt - images).abs().mean())
    expected = -2 * float(chance.log().mean()) + 3 * colours + 4 * features
    assert found == pytest.approx(expected, rel=1e-4)
