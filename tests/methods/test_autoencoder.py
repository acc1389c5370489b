import numpy as np
import pytest
import torch
from listening import catch_trainings
from plates import PLAIN, SIZE, as_images, plate_support, plates
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from fewshot_ad.methods.autoencoder import Autoencoder
from fewshot_ad.parts import image_methods


def small(**changes) -> Autoencoder:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 4}
    return Autoencoder(**(settings | {"blur": 1.5} | changes))


@pytest.mark.parametrize("vae", [False, True])
def test_the_map_is_the_blurred_squared_error(vae: bool) -> None:
    method, colours = small(vae=vae).fit(plate_support(2)), plates(2, seed=5)
    found = method.predict(as_images(colours))
    assert method.network_ is not None
    for image, ours in zip(colours, found.anomaly_map, strict=True):
        codes = method.network_.encoder(image[None])[:, : method.latent]
        rebuilt = method.network_.decode(codes)[0]
        expected = ((rebuilt - image) ** 2).double().numpy().mean(axis=0)
        np.testing.assert_allclose(ours, gaussian_filter(expected, 1.5), rtol=1e-3, atol=1e-6)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_ssim_is_that_of_scikit_image() -> None:
    method, colours = small(loss="ssim", blur=0.0).fit(plate_support(2)), plates(1, seed=5)
    assert method.network_ is not None
    rebuilt = method.network_.decode(method.network_.encode(colours)[0])[0]
    _, similarity = structural_similarity(
        *(image.double().numpy() for image in (rebuilt, colours[0])),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    found = method.predict(as_images(colours)).anomaly_map[0]
    inside = slice(5, -5)
    expected = 1 - similarity.mean(axis=0)
    np.testing.assert_allclose(found[inside, inside], expected[inside, inside], atol=1e-3)


@pytest.mark.parametrize(
    "changes", [{"loss": "l2"}, {"loss": "ssim"}, {"vae": True, "kl_weight": 0.1}]
)
def test_training_rebuilds_the_support_better(changes: dict[str, object]) -> None:
    support = plate_support(2)
    errors = [
        float(small(steps=steps, **changes).fit(support).predict(support.images).anomaly_map.mean())
        for steps in (1, 40)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_an_untrained_decoder_begins_at_the_mean_colour() -> None:
    method = small(steps=1, learning_rate=1e-12).fit(plate_support(2))
    assert method.network_ is not None
    rebuilt = method.network_.decode(torch.zeros(1, method.latent))
    assert (rebuilt.mean(dim=(0, 2, 3)) - plates(2).mean(dim=(0, 2, 3))).abs().max() < 0.1


def test_a_heavy_divergence_leaves_the_latents_nothing_to_tell() -> None:
    support = plate_support(4)

    def spread(weight: float) -> float:
        method = small(vae=True, kl_weight=weight, steps=60, learning_rate=3e-3).fit(support)
        assert method.network_ is not None
        return float(method.network_.encode(plates(4))[0].square().mean())

    assert spread(1e4) < 0.2 * spread(0.0)


def test_the_loss_of_a_vae_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = catch_trainings(monkeypatch, image_methods)
    small(vae=True, kl_weight=2.0, shift=0.0, turn=0.0, batch_size=2).fit(plate_support(2))
    network, loss, _ = caught[0]
    mean, log_variance = network.encoder(plates(2)).chunk(2, dim=1)
    latents = torch.distributions.Normal(mean, (log_variance / 2).exp())
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    rebuilt = network.decode(latents.mean + latents.stddev * noise)
    unit = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    divergence = torch.distributions.kl_divergence(latents, unit).sum(dim=1).mean()
    expected = (rebuilt - plates(2)).square().mean() + 2.0 * divergence / (3 * SIZE**2)
    found = loss(torch.arange(2), torch.Generator().manual_seed(3))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
