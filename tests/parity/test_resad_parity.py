"""Our parts against outputs of the official ResAD and BGAD functions."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.boundary import (
    RunningBoundary,
    abnormal_focal_loss,
    asymmetric_weights,
    boundary_barrier,
    boundary_hinge,
    likelihood_loss,
    quantile_boundary,
)
from fewshot_ad.parts.codebook import Codebook
from fewshot_ad.parts.constraintors import ConvConstraintor, TokenConstraintor
from fewshot_ad.parts.flows import (
    ConditionalFlow,
    abnormal_probability,
    log_likelihood,
    position_code,
    position_vectors,
)
from fewshot_ad.parts.maps import fuse, gaussian_blur, image_score, to_vectors, unlikelihood_map
from fewshot_ad.parts.official import load_official_state_dict
from fewshot_ad.parts.one_class import (
    bidirectional_contraction,
    contraction_radius,
    invariance,
    orthogonality_penalty,
    released_invariant_loss,
    spread,
)
from fewshot_ad.parts.residuals import match, match_distribution, residual, take
from fewshot_ad.parts.violations import masked_mean, weighted_barrier

SHARED = Path(os.environ.get("FEWSHOT_AD_SHARED", Path(__file__).parents[3] / "shared"))
PARITY = SHARED / "parity"
pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason=f"no reference outputs of the official code at {PARITY}"
)

Arrays = dict[str, Tensor]
REGIMES = ["normal_only", "mixed", "tight_anom", "large", "anom_only"]


def load(name: str) -> Arrays:
    with np.load(PARITY / f"{name}.npz") as arrays:
        return {
            key: torch.as_tensor(arrays[key])
            for key in arrays.files
            if arrays[key].dtype.kind != "U"
        }


def under(arrays: Arrays, prefix: str) -> Arrays:
    return {
        key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)
    }


def close(ours: Tensor | float, theirs: Tensor, tolerance: float) -> None:
    ours = torch.as_tensor(ours).detach().to(theirs.dtype)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def leaf(value: Tensor) -> Tensor:
    return value.clone().requires_grad_()


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def test_conv_constraintor_in_training_and_at_test() -> None:
    arrays = load("constraintor_conv")
    levels = [ConvConstraintor(channels) for channels in (12, 16, 24)]
    load_official_state_dict(levels, under(arrays, "w:"), "l{level}_proj.")
    for number, level in enumerate(levels):
        close(level.train()(arrays[f"x{number}"]), arrays[f"train{number}"], 1e-5)
        close(level.eval()(arrays[f"x{number}"]), arrays[f"eval{number}"], 1e-5)
        for name, after in under(arrays, f"after:l{number + 1}_proj.").items():
            close(level.state_dict()[name], after, 1e-5)


def test_token_constraintor() -> None:
    arrays = load("constraintor_ortho")
    levels = [TokenConstraintor(16) for _ in range(4)]
    load_official_state_dict(levels, under(arrays, "w:"), "l{level}_proj.")
    for number, level in enumerate(levels):
        close(level(arrays[f"x{number}"]), arrays[f"y{number}"], 1e-5)


def test_position_code() -> None:
    arrays = load("posenc")
    close(position_code(256, 14, 14), arrays["d256_14x14"], 1e-6)
    close(position_code(8, 5, 7), arrays["d8_5x7"], 1e-6)


@pytest.mark.parametrize(
    ("name", "tolerance", "logdet_tolerance", "inverse_tolerance"),
    [
        ("flow_cond_small", 1e-5, 1e-4, 1e-5),
        ("flow_cond_mid", 1e-5, 1e-4, 1e-5),
        ("flow_cond_odd", 1e-12, 1e-12, 1e-6),
        ("flow_plain_small", 1e-12, 1e-12, 1e-6),
    ],
)
def test_flow(
    name: str, tolerance: float, logdet_tolerance: float, inverse_tolerance: float
) -> None:
    arrays = load(name)
    state, vectors, condition = under(arrays, "w:"), leaf(arrays["x"]), arrays.get("cond")
    blocks = 1 + max(int(key.split(".")[1]) for key in state)
    dims = 0 if condition is None else condition.shape[1]
    flow = ConditionalFlow(vectors.shape[1], blocks, dims).to(vectors.dtype)
    flow.load_official_state_dict(state)
    latents, logdet = flow(vectors, condition)
    close(latents, arrays["z"], tolerance)
    close(logdet, arrays["logdet"], logdet_tolerance)
    likelihood = log_likelihood(latents, logdet)
    close(likelihood, arrays["logp_per_dim"], tolerance)
    close(likelihood * vectors.shape[1], arrays["logp"], logdet_tolerance)
    close(log_likelihood(latents, logdet, centre=1.0), arrays["logp_a_per_dim"], tolerance)
    total = (likelihood * vectors.shape[1]).mean()
    close(gradient(total, vectors), arrays["grad_x_of_mean_logp"], tolerance)
    back, logdet_back = flow.inverse(arrays["z"], condition)
    close(back, arrays["x_back"], inverse_tolerance)
    close(logdet_back, arrays["logdet_back"], max(logdet_tolerance, inverse_tolerance))


def released_radius(features: Tensor, is_anomalous: Tensor) -> float:
    return contraction_radius(features, is_anomalous, quantile=0.0, smallest=0.0)


def bidirectional(features: Tensor, target: Tensor, is_anomalous: Tensor) -> Tensor:
    radius = released_radius(features, is_anomalous)
    return bidirectional_contraction(features, target, is_anomalous, radius)


def outer_side_only(features: Tensor, target: Tensor, is_anomalous: Tensor) -> Tensor:
    outside = spread(features[~is_anomalous]) - released_radius(features, is_anomalous)
    return weighted_barrier(outside) + invariance(features, target, is_anomalous)


def linear_shell(features: Tensor, target: Tensor, is_anomalous: Tensor) -> Tensor:
    outer = released_radius(features, is_anomalous)
    distance, inner = spread(features[~is_anomalous]), 0.99 * outer
    shell = masked_mean(distance - inner, distance > outer) + masked_mean(
        outer - distance, distance < inner
    )
    return shell + invariance(features, target, is_anomalous)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("calculate_log_barrier_bi_occ_loss", bidirectional),
        ("calculate_log_barrier_occ_loss", outer_side_only),
        ("calculate_bi_occ_loss", linear_shell),
        ("calculate_occ_loss", released_invariant_loss),
    ],
)
def test_one_class_losses(regime: str, name: str, loss) -> None:
    arrays = under(load("loss_occ"), f"{regime}:")
    features = leaf(arrays["features"])
    value = loss(features, arrays["target"], arrays["mask"].bool())
    close(value, arrays[name], 1e-6)
    close(gradient(value, features), arrays[f"{name}:grad"], 1e-6)


@pytest.mark.parametrize("regime", [regime for regime in REGIMES if regime != "anom_only"])
def test_orthogonality_penalty(regime: str) -> None:
    arrays = under(load("loss_occ"), f"{regime}:")
    features = leaf(arrays["features"])
    value = orthogonality_penalty(features, arrays["mask"].bool())
    close(value, arrays["orthogonal"], 1e-6)
    close(gradient(value, features), arrays["orthogonal:grad"], 1e-6)


@pytest.mark.parametrize("quantile", ["0.0", "0.01", "0.05", "0.2"])
def test_boundary_from_a_chunk(quantile: str) -> None:
    arrays = load("loss_flow")
    boundary = quantile_boundary(arrays["logp"], arrays["mask"].bool(), float(quantile))
    assert boundary is not None
    close(boundary, arrays[f"normal_boundary:{quantile}"], 1e-6)
    both = torch.tensor([boundary / 10, boundary / 10 - 0.1])
    close(both, arrays[f"logp_boundary_norm10:{quantile}"], 1e-6)


@pytest.mark.parametrize("margin", ["0.0", "0.1", "0.3"])
def test_boundary_barrier(margin: str) -> None:
    arrays = load("loss_flow")
    is_anomalous = arrays["mask"].bool()
    likelihood = leaf(arrays["logp"])
    boundary = quantile_boundary(likelihood, is_anomalous)
    total = boundary_barrier(likelihood, is_anomalous, boundary, float(margin))
    parts = [
        boundary_barrier(likelihood[kind], is_anomalous[kind], boundary, float(margin))
        for kind in (~is_anomalous, is_anomalous)
    ]
    close(torch.stack(parts), arrays[f"logbarrier:{margin}"], 1e-6)
    close(gradient(total, likelihood), arrays[f"logbarrier:{margin}:grad"], 1e-6)


def test_likelihood_and_focal_loss() -> None:
    arrays = load("loss_flow")
    close(likelihood_loss(arrays["logp"], "softplus"), arrays["logsigmoid_nll"], 1e-6)
    probability = leaf(arrays["focal_prob"][:, 1])
    value = abnormal_focal_loss(probability, arrays["mask"].bool())
    close(value, arrays["focal"], 1e-6)
    theirs = arrays["focal:grad"]
    close(gradient(value, probability), theirs[:, 1] - theirs[:, 0], 1e-6)


def flow_loss(
    latents: Tensor,
    logdet: Tensor,
    is_anomalous: Tensor,
    boundary: RunningBoundary | None,
    form: str,
    pulls_all: bool,
) -> Tensor:
    """One chunk: the released losses put together from parts; ``boundary`` opens stage 2."""
    normal = log_likelihood(latents, logdet)
    if pulls_all:
        return likelihood_loss(normal, form)
    abnormal = log_likelihood(latents, logdet, centre=1.0)
    loss = likelihood_loss(normal[~is_anomalous], form) + likelihood_loss(
        abnormal[is_anomalous], form
    )
    if is_anomalous.any():
        loss = loss + abnormal_focal_loss(abnormal_probability(latents), is_anomalous)
    if boundary is not None:
        loss = loss + boundary_barrier(normal, is_anomalous, boundary.value)
    return loss


@pytest.mark.parametrize("labels", ["mixed", "normal"])
@pytest.mark.parametrize("name", ["flow_loss", "flow_loss_boundary"])
def test_flow_loss(name: str, labels: str) -> None:
    arrays = load("loss_flow")
    is_anomalous = arrays["mask"].bool() & (labels == "mixed")
    latents, logdet = leaf(arrays["z"]), arrays["logdet"]
    boundary = None
    if name == "flow_loss_boundary":
        value = quantile_boundary(log_likelihood(latents, logdet), is_anomalous)
        close(value, arrays[f"{name}:{labels}:b_n"], 1e-6)
        boundary = RunningBoundary(corrected=False, mean=value)
    value = flow_loss(latents, logdet, is_anomalous, boundary, "plain", pulls_all=False)
    close(value, arrays[f"{name}:{labels}"], 1e-6)
    close(gradient(value, latents), arrays[f"{name}:{labels}:grad"], 1e-6)


@pytest.mark.parametrize("quantile", ["0.01", "0.05"])
def test_bgad_hinge(quantile: str) -> None:
    arrays = load("bgad_hinge")
    is_anomalous, likelihood = arrays["mask"].bool(), leaf(arrays["logp"])
    scaled = likelihood / 10
    boundary = quantile_boundary(scaled, is_anomalous, float(quantile))
    close(torch.tensor([boundary, boundary - 0.1]), arrays[f"bounds:{quantile}"], 1e-6)
    parts = torch.stack(
        [
            boundary_hinge(scaled[kind], is_anomalous[kind], boundary)
            for kind in (~is_anomalous, is_anomalous)
        ]
    )
    close(parts, arrays[f"loss:{quantile}"], 1e-6)
    close(parts[0], arrays[f"loss_normal_only:{quantile}"], 1e-6)
    close(boundary_hinge(scaled, is_anomalous, boundary), parts.detach().sum(), 1e-6)
    close(gradient(parts.sum(), likelihood), arrays[f"grad:{quantile}"], 1e-6)


def test_bgad_focal_weights() -> None:
    arrays = load("bgad_hinge")
    for label, name in ((False, "w_normal"), (True, "w_abnormal")):
        labels = torch.full((len(arrays["logp"]),), label)
        close(asymmetric_weights(arrays["logp"] / 10, labels), arrays[name], 1e-6)


def test_codebook() -> None:
    arrays = load("vq")
    levels = [Codebook(channels, entries=7) for channels in (6, 8, 10)]
    load_official_state_dict(levels, under(arrays, "w:"), "vq{level}.")
    total = torch.zeros(())
    for number, level in enumerate(levels):
        maps, mask = arrays[f"x{number}"], arrays[f"mask{number}"].bool().flatten()
        assert torch.equal(level(maps), arrays[f"q{number}"])
        total = total + level.loss(to_vectors(maps)[~mask])
    close(total, arrays["loss"], 1e-6)
    total.backward()
    for number, level in enumerate(levels, start=1):
        close(level.embedding.weight.grad, arrays[f"grad:vq{number}.embedding.weight"], 1e-6)


@pytest.mark.parametrize("level", [0, 1])
def test_matching_and_residuals(level: int) -> None:
    arrays = load("residual")
    features, classes = arrays[f"feat{level}"], ["a", "b", "a"]
    height, width = features.shape[2:]

    def matched(pools: list[str]) -> Tensor:
        found = []
        for image, pool in zip(features, pools, strict=True):
            bank = arrays[f"pool_{pool}{level}"]
            _, index = match(to_vectors(image[None]), bank, "cosine")
            found.append(take(bank[:, :, None, None], index.view(1, height, width)))
        return torch.cat(found)

    assert torch.equal(matched(["a", "a", "a"]), arrays[f"match_one{level}"])
    many = matched(classes)
    assert torch.equal(many, arrays[f"match_many{level}"])
    close(residual(features, many, "signed"), arrays[f"diff{level}"], 1e-6)
    close(residual(features, many, "squared"), arrays[f"sq{level}"], 1e-6)


@pytest.mark.parametrize("keep", ["0.0", "0.4", "1.0"])
@pytest.mark.parametrize("level", [0, 1])
def test_distribution_matching(level: int, keep: str) -> None:
    arrays = load("residual")
    ours = match_distribution(arrays[f"sq{level}"], arrays[f"efdm_ref{level}"], float(keep))
    close(ours, arrays[f"efdm{keep}:{level}"], 1e-6)


def test_running_boundary() -> None:
    arrays = load("residual")
    running = RunningBoundary(corrected=False)
    ours = torch.tensor([running.update(float(b)) for b in arrays["ema_in"]], dtype=torch.float64)
    close(ours, arrays["ema_out"], 1e-6)


def test_scoring_given_the_maxima_of_the_class() -> None:
    arrays = load("scoring")
    size = tuple(arrays["score_merged"].shape[1:])
    logp, prob = ([arrays[f"{kind}{level}"] for level in range(3)] for kind in ("logp", "prob"))
    level_peak = [float(maps.max()) for maps in logp]
    likelihood = unlikelihood_map(logp, level_peak, size, total_peak=0.0, align_corners=True)
    total_peak = float((-likelihood).max())
    unlikely = unlikelihood_map(logp, level_peak, size, total_peak, align_corners=True)
    by_likelihood = gaussian_blur(unlikely, 4.0)
    by_probability = gaussian_blur(fuse(prob, size, align_corners=True), 4.0)
    close(by_likelihood, arrays["score_logp"], 1e-5)
    close(by_probability, arrays["score_prob"], 1e-5)
    merged = (by_likelihood + by_probability) / 2
    close(merged, arrays["score_merged"], 1e-5)


def test_image_scores() -> None:
    arrays = load("scoring")
    close(image_score(arrays["metric_scores"]), arrays["image_top1"], 1e-12)
    close(image_score(arrays["metric_scores"], top=100), arrays["image_top100"], 1e-12)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", ["train", "train2"])
def test_one_optimisation_pass(name: str, stage: int) -> None:
    arrays = load(f"{name}_stage{stage}")
    loss_sum, steps, boundaries = 0.0, 0, []
    for level, blocks_state in enumerate(under(arrays, f"w{level}:") for level in range(3)):
        total, count, boundary, flow = train_level(arrays, level, blocks_state, name, stage)
        loss_sum, steps = loss_sum + total, steps + count
        boundaries.append(boundary)
        for key, after in under(arrays, f"after{level}:").items():
            close(flow.inn.state_dict()[key], after, 1e-5)
    assert steps == int(arrays["steps"])
    close(loss_sum, arrays["loss_sum"], 1e-5)
    close(torch.tensor(boundaries, dtype=torch.float64), arrays["boundaries"], 1e-5)


def train_level(
    arrays: Arrays, level: int, state: Arrays, name: str, stage: int
) -> tuple[float, int, float, ConditionalFlow]:
    """Chunks of the given permutation, the remainder dropped; a step of Adam each."""
    maps, is_anomalous = arrays[f"x{level}"], arrays[f"mask{level}"].bool().flatten()
    batch, channels, height, width = maps.shape
    vectors, positions = to_vectors(maps), position_vectors(8, batch, height, width)
    flow = ConditionalFlow(channels, blocks=2, condition_dims=8)
    flow.load_official_state_dict(state)
    settings = {"lr": float(arrays["lr"]), "weight_decay": float(arrays["weight_decay"])}
    optimizer = torch.optim.Adam(flow.parameters(), **settings)
    boundary, total, steps = RunningBoundary(corrected=False), 0.0, 0
    size = int(arrays["n_batch"])
    for chunk in arrays[f"perm{level}"].split(size):
        if len(chunk) < size:
            break
        latents, logdet = flow(vectors[chunk], positions[chunk])
        label = is_anomalous[chunk]
        boundary.update(quantile_boundary(log_likelihood(latents, logdet), label))
        saturating = name == "train"
        form, pulls_all = (
            ("softplus", stage == 1 or not label.any()) if saturating else ("plain", False)
        )
        running = boundary if stage == 2 else None
        loss = flow_loss(latents, logdet, label, running, form, pulls_all)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, steps = total + loss.item(), steps + 1
    return total, steps, boundary.value, flow
