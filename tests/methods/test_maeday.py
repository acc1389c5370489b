import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from fewshot_ad.api import NotFittedError, Preprocess, Support
from fewshot_ad.methods.maeday import MAEDAY, _random_crops
from fewshot_ad.parts.mae import (
    content_generator,
    load_autoencoder,
    quartered_noise,
    random_noise,
)

SIZE, N_PATCHES = 32, 16


def small(**changes) -> MAEDAY:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "steps": 3,
        "batch": 4,
        "rank": 2,
    }
    return MAEDAY(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(8))


def nothing() -> Support:
    return Support("noise", torch.empty(0, 3, SIZE, SIZE))


def map_by_hand(image: Tensor, noise: Tensor, sigma: float) -> np.ndarray:
    """Every mask by itself: error of the pixels, blurred; then the mean."""
    autoencoder = load_autoencoder("random:tiny", size=SIZE)
    heights = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    blurred = []
    for each in noise:
        drawn, _ = autoencoder.redraw(image[None], each[None])
        pixels = autoencoder.network.unpatchify(drawn, (SIZE, SIZE))
        error = (pixels[0] - image).square().sum(dim=0).detach().double().numpy()
        for axis in (0, 1):
            error = correlate1d(error, heights / heights.sum(), axis=axis, mode="mirror")
        blurred.append(error)
    return np.mean(blurred, axis=0)


@pytest.mark.parametrize("quartered", [False, True])
def test_without_support_it_is_the_mean_of_blurred_errors(images: Tensor, quartered: bool) -> None:
    found = small(masks=12, quartered=quartered, seed=5).fit(nothing()).predict(images)
    draw = quartered_noise if quartered else random_noise
    for image, ours in zip(images, found.anomaly_map, strict=True):
        noise = draw(12, N_PATCHES, content_generator(image[None], 5))
        np.testing.assert_allclose(ours, map_by_hand(image, noise, 1.4), rtol=1e-4)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_without_blur_the_map_is_the_error(images: Tensor) -> None:
    noise = random_noise(32, N_PATCHES, content_generator(images[:1], 0))
    expected = load_autoencoder("random:tiny", size=SIZE).error_map(images[:1], noise)
    found = small(blur=0.0).fit(nothing()).predict(images[:1])
    assert torch.equal(found.anomaly_map, expected)


def test_tuning_changes_scores_and_a_second_fit_forgets_it(images: Tensor) -> None:
    method = small(learning_rate=1.0)
    without = method.fit(nothing()).predict(images).image_score
    tuned = method.fit(Support("noise", images[:2])).predict(images).image_score
    assert not torch.allclose(tuned, without, rtol=1e-3)
    assert torch.equal(method.fit(nothing()).predict(images).image_score, without)
    again = small(learning_rate=1.0).fit(Support("noise", images[:2])).predict(images).image_score
    assert torch.equal(tuned, again)


def test_tuning_lowers_the_error_of_the_support() -> None:
    image = torch.linspace(-1, 1, SIZE).expand(1, 3, SIZE, SIZE)
    method = small(steps=40, learning_rate=0.5, rank=8, weight_decay=0.0)
    before = method.fit(nothing()).predict(image).anomaly_map.mean()
    after = method.fit(Support("ramp", image)).predict(image).anomaly_map.mean()
    assert after < 0.9 * before


def test_no_steps_leave_the_network_as_it_is(images: Tensor) -> None:
    still = small(steps=0)
    assert (still.track, small().track) == ("training_free", "target_tuned")
    found = still.fit(Support("noise", images)).predict(images).image_score
    assert torch.equal(found, small().fit(nothing()).predict(images).image_score)


def test_tuning_leaves_randomness_alone(images: Tensor) -> None:
    before = torch.get_rng_state()
    small().fit(Support("noise", images)).predict(images)
    assert torch.equal(torch.get_rng_state(), before)


def test_norm_pix_is_taken_from_the_parameter(images: Tensor) -> None:
    found = small(norm_pix=True, blur=0.0).fit(nothing()).predict(images).anomaly_map
    patches = found.unfold(1, 8, 8).unfold(2, 8, 8)
    assert torch.equal(patches.amax(dim=(3, 4)), patches.amin(dim=(3, 4)))


def test_crops_are_squares_of_the_support() -> None:
    coordinates = torch.arange(32.0)
    rows, columns = torch.meshgrid(coordinates, coordinates, indexing="ij")
    images = torch.stack([torch.stack([rows, columns, torch.full_like(rows, n)]) for n in (0, 1)])
    crops = _random_crops(images, 40, 0.25, torch.Generator().manual_seed(0))
    assert crops.shape == (40, 3, 32, 32)
    across = crops[:, 1, 16].diff(dim=1)[:, 4:-4].mean(dim=1) * 32
    down = crops[:, 0, :, 16].diff(dim=1)[:, 4:-4].mean(dim=1) * 32
    torch.testing.assert_close(across, down, rtol=0.05, atol=0)
    assert 15.5 < across.min() < 20 < 28 < across.max() < 32.5
    assert {*crops[:, 2].mean(dim=(1, 2)).round().tolist()} == {0.0, 1.0}


def test_whole_images_are_the_only_crops_of_all_their_area(images: Tensor) -> None:
    crops = _random_crops(images[:1], 3, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(crops, images[:1].expand(3, -1, -1, -1))


def test_it_reads_nothing_before_it_is_fitted(images: Tensor) -> None:
    with pytest.raises(NotFittedError):
        MAEDAY().predict(images)
    fitted = small().fit(nothing())
    with pytest.raises(NotFittedError):
        fitted.variant().predict(images)
    assert "autoencoder_" not in fitted.params()


def test_the_digest_is_that_of_the_frozen_weights(images: Tensor) -> None:
    method = small()
    before = method.weights_digest
    assert method.fit(Support("noise", images)).weights_digest == before
    assert small(mask_ratio=0.5).weights_digest == before
