from pathlib import Path
from typing import Any

import pytest
import torch
from noisy import SIZE, Noisy, noise

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.resad_pp import ResADPlusPlus, ResADPlusPlusLevel
from fewshot_ad.parts.boundary import likelihood_loss
from fewshot_ad.parts.flows import log_likelihood
from fewshot_ad.parts.training import step_generator


def small(**changes: Any) -> ResADPlusPlus:
    settings: dict[str, Any] = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "channels": 8,
        "flow_blocks": 2,
        "codes": 16,
        "steps": 3,
        "batch_size": 4,
        "known_shots": 2,
        "vectors_per_step": 64,
    }
    return ResADPlusPlus(**(settings | changes))


def trained(method: ResADPlusPlus) -> ResADPlusPlus:
    return method.meta_train(Noisy()).fit(Support("noise", noise(2)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep": 0.4},
        {"keep": 0.0},
        {"constraintor": "none"},
        {"constraintor": "conv"},
        {"form": "signed", "metric": "euclidean"},
        {"boundary_weight": 0.0},
        {"warm_up": 1.0},
        {"learned_share": 0.0},
        {"learned_share": 1.0},
        {"position_dims": 8, "held_out": 0.0},
    ],
    ids=str,
)
def test_every_ablation_trains_and_predicts_alike_alone_and_in_a_batch(
    changes: dict[str, Any],
) -> None:
    method, images = trained(small(**changes)), noise(3, seed=5)
    together = method.predict(images)
    assert together.anomaly_map.isfinite().all()
    assert together.anomaly_map.std() > 0
    for index in range(3):
        alone = method.predict(images[index : index + 1])
        assert torch.equal(alone.anomaly_map[0], together.anomaly_map[index])
        assert torch.equal(alone.image_score[0], together.image_score[index])


def test_the_released_settings_train() -> None:
    method = small().variant(**ResADPlusPlus.PAPER).variant(steps=2, batch_size=2, codes=16)
    assert trained(method).predict(noise(1, seed=5)).anomaly_map.isfinite().all()


@pytest.mark.parametrize("kind", [True, False])
def test_a_batch_of_one_kind_leaves_everything_finite(kind: bool) -> None:
    level = ResADPlusPlusLevel(small(warm_up=0.0, keep=0.4), 0, 8)
    residuals = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    cells = torch.full((2, 4, 4), kind)
    for step in range(3):
        level.learn(residuals, cells, step, step_generator(0, step))
    assert all(value.isfinite().all() for value in level.parameters())
    assert level.eval().score(residuals).isfinite().all()
    level.prepare([residuals], [(residuals, cells)])
    level.calibrate([residuals])
    assert level.peak.value.isfinite()
    assert level.score(residuals).isfinite().all()


def test_anomalies_are_no_part_of_the_warm_up() -> None:
    level = ResADPlusPlusLevel(small(steps=10, warm_up=0.5), 0, 8)
    vectors = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    latents = level.flow(vectors)
    is_anomalous = torch.tensor([True, False, False, True, False, False])
    normals = log_likelihood(*latents)[~is_anomalous]
    during, after = (level._flow_loss(latents, is_anomalous, step) for step in (4, 5))
    torch.testing.assert_close(during, likelihood_loss(normals, "softplus"))
    assert after > during


@torch.no_grad()
def test_score_is_the_mean_of_unlikely_as_normal_and_likely_as_abnormal() -> None:
    level = ResADPlusPlusLevel(small(), 0, 8).eval()
    residuals = torch.rand(1, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    level.scale.rms.fill_(2.0)
    level.peak.value.fill_(-0.5)
    scores = level.score(residuals)
    for row in range(3):
        for column in range(3):
            latents, logdet = level.flow(residuals[:, :, row, column] / 2)
            as_normal, as_abnormal = (
                log_likelihood(latents, logdet, centre).double() for centre in (0.0, 1.0)
            )
            likely = as_abnormal.exp() / (as_normal.exp() + as_abnormal.exp())
            expected = (1 - (as_normal + 0.5).exp() + likely) / 2
            assert float(scores[0, row, column]) == pytest.approx(float(expected), rel=1e-4)


def test_codes_follow_normals_only_where_residuals_are_pulled() -> None:
    moved = {}
    for keep in (0.4, 1.0):
        level = ResADPlusPlusLevel(small(keep=keep), 0, 8)
        before = level.codebook.embedding.weight.detach().clone()
        cells = torch.zeros(2, 4, 4, dtype=torch.bool)
        level.learn(torch.rand(2, 8, 4, 4), cells, 0, step_generator(0, 0))
        moved[keep] = not torch.equal(level.codebook.embedding.weight, before)
    assert moved == {0.4: True, 1.0: False}


def test_what_was_learned_travels(tmp_path: Path) -> None:
    method, images = trained(small(keep=0.4)), noise(2, seed=5)
    method.save(tmp_path / "c")
    copy = small(keep=0.4).load(tmp_path / "c").fit(Support("noise", noise(2)))
    assert torch.equal(copy.predict(images).anomaly_map, method.predict(images).anomaly_map)
