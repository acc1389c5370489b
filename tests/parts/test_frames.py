import numpy as np
import torch

from fewshot_ad.api import LabelledBatch, Preprocess, Support
from fewshot_ad.images import prepare
from fewshot_ad.parts.frames import fit_maps, reframe, reframe_support

CLIP = Preprocess(size=48, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
OURS = Preprocess(size=48)


def smooth_image() -> np.ndarray:
    ramp = np.linspace(20, 220, 96).astype(np.uint8)
    return np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((96, 96), 90)], 2)


def test_other_means_are_those_of_the_image_prepared_anew() -> None:
    image = smooth_image().astype(np.uint8)
    found = reframe(prepare(image, OURS)[None], OURS, CLIP)
    torch.testing.assert_close(found[0], prepare(image, CLIP), rtol=0, atol=1e-5)


def test_another_size_is_nearly_that_of_the_image_prepared_anew() -> None:
    image = smooth_image().astype(np.uint8)
    for size in (24, 64):
        wanted = Preprocess(size=size, mean=CLIP.mean, std=CLIP.std)
        found = reframe(prepare(image, OURS)[None], OURS, wanted)[0]
        torch.testing.assert_close(found, prepare(image, wanted), rtol=0, atol=0.05)


def test_the_same_frame_keeps_the_bits() -> None:
    images = torch.rand(2, 3, 48, 48)
    assert reframe(images, OURS, Preprocess(size=48, geometry="pad")) is images
    assert fit_maps(images[:, 0], (48, 48)).data_ptr() == images.data_ptr()
    assert fit_maps(images[:, 0], (24, 12)).shape == (2, 24, 12)


def test_no_images_stay_none() -> None:
    assert reframe(torch.empty(0, 3, 48, 48), OURS, Preprocess(size=64)).shape == (0, 3, 64, 64)


def test_a_support_takes_its_masks_along() -> None:
    images, masks = torch.rand(2, 3, 48, 48), torch.zeros(2, 48, 48, dtype=torch.bool)
    masks[0, 12:24, 24:] = True
    given = Support("a", images, LabelledBatch(images, masks, torch.tensor([True, False])))
    found = reframe_support(given, OURS, Preprocess(size=24))
    assert found.target_class == "a"
    assert found.images.shape == (2, 3, 24, 24)
    assert found.anomalous is not None
    assert torch.equal(found.anomalous.images, found.images)
    expected = torch.zeros(2, 24, 24, dtype=torch.bool)
    expected[0, 6:12, 12:] = True
    assert torch.equal(found.anomalous.masks, expected)
    assert found.anomalous.is_anomalous.tolist() == [True, False]
