from pathlib import Path
from typing import Any

import pytest
import torch
from noisy import SIZE, Noisy, noise

from fewshot_ad.api import FewShotError, NotFittedError, Preprocess, Support
from fewshot_ad.methods.resad import ResAD, ResADLevel
from fewshot_ad.parts import training
from fewshot_ad.parts.flows import log_likelihood


def small(**changes: Any) -> ResAD:
    settings: dict[str, Any] = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "channels": 8,
        "flow_blocks": 2,
        "steps": 3,
        "batch_size": 4,
        "known_shots": 2,
        "vectors_per_step": 64,
    }
    return ResAD(**(settings | changes))


def trained(method: ResAD, known: Noisy | None = None) -> ResAD:
    return method.meta_train(known or Noisy()).fit(Support("noise", noise(2)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"constraintor": "none"},
        {"constraintor": "conv"},
        {"flow_blocks": 0},
        {"flow_blocks": 0, "constraintor": "none"},
        {"boundary_weight": 0.0},
        {"warm_up": 1.0},
        {"form": "squared", "metric": "cosine"},
        {"form": "signed"},
        {"learned_share": 0.0},
        {"learned_share": 1.0},
        {"position_dims": 8},
        {"constrained_channels": None},
        {"held_out": 0.0, "known_supports": 2},
        {"batch_size": 1},
        {"channels": None, "unit_length": False, "neighbourhood": 3},
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


def test_the_settings_of_the_paper_train() -> None:
    method = small().variant(**ResAD.PAPER).variant(steps=2, batch_size=2)
    found = trained(method).predict(noise(1, seed=5))
    assert found.anomaly_map.isfinite().all()


@pytest.mark.parametrize("kinds", [(False,), (True, False)])
def test_one_kind_of_image_is_enough(kinds: tuple[bool, ...]) -> None:
    method = trained(small(), Noisy(kinds))
    assert method.models_ is not None
    for name, value in method.models_.state_dict().items():
        assert value.isfinite().all(), name


def test_known_classes_without_a_normal_image_are_refused() -> None:
    with pytest.raises(FewShotError, match="has a labelled normal image"):
        small().meta_train(Noisy((True,)))


@pytest.mark.parametrize("kind", [True, False])
def test_a_batch_of_one_kind_leaves_everything_finite(kind: bool) -> None:
    level = ResADLevel(small(warm_up=0.0), 0, 8)
    residuals = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    cells = torch.full((2, 4, 4), kind)
    for step in range(3):
        level.learn(residuals, cells, step, training.step_generator(0, step))
    assert all(value.isfinite().all() for value in level.parameters())
    assert level.eval().score(residuals).isfinite().all()
    level.prepare([residuals], [(residuals, cells)])
    level.calibrate([residuals])
    assert level.peak.value.isfinite()
    assert level.score(residuals).isfinite().all()


@torch.no_grad()
def test_score_is_the_root_of_what_a_likelihood_lacks() -> None:
    level = ResADLevel(small(), 0, 8).eval()
    residuals = torch.randn(1, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    level.scale.rms.fill_(2.0)
    level.peak.value.fill_(-1.0)
    assert level.flow is not None
    for row in range(3):
        for column in range(3):
            vector = residuals[:, :, row, column] / 2
            likelihood = float(log_likelihood(*level.flow(vector)))
            expected = max(0.0, 2 * (-1.0 - likelihood)) ** 0.5
            assert float(level.score(residuals)[0, row, column]) == pytest.approx(
                expected, rel=1e-4
            )


def test_what_was_learned_finds_defects_like_the_known_ones() -> None:
    method, plain = trained(small(steps=20, learned_share=1.0, channels=32)), noise(6, seed=5)
    marked = plain.clone()
    marked[:, :, 4:14, 6:16] += 3
    assert method.predict(marked).image_score.min() > method.predict(plain).image_score.max()


def test_a_broken_training_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1.0)
    learn, calls = ResADLevel.learn, []

    def dying(self: ResADLevel, *args: Any) -> None:
        calls.append(args[2])
        if len(calls) == 6:  # in the middle of step 2, of two levels
            raise KeyboardInterrupt
        learn(self, *args)

    monkeypatch.setattr(ResADLevel, "learn", dying)
    method = small(steps=5, constraintor="conv")
    with pytest.raises(KeyboardInterrupt):
        method.variant().meta_train(Noisy(), resume=tmp_path / "partial")
    resumed = method.variant().meta_train(Noisy(), resume=tmp_path / "partial")
    assert calls[6:] == [2, 2, 3, 3, 4, 4]
    unbroken = method.variant().meta_train(Noisy())
    assert resumed.models_ is not None
    assert unbroken.models_ is not None
    ours, theirs = resumed.models_.state_dict(), unbroken.models_.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.known_ == unbroken.known_
    other = method.variant(learning_rate=1e-2).meta_train(Noisy(), resume=tmp_path / "partial")
    assert calls[-10:] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert other.models_ is not None


def test_what_was_known_is_remembered_and_travels(tmp_path: Path) -> None:
    method = trained(small())
    assert method.known_ is not None
    assert method.known_.names == Noisy.names
    assert method.known_.digests == Noisy.digests
    assert len(method.known_.held_out) == 1
    assert 1 <= method.known_.selected_step <= 3
    method.save(tmp_path / "c")
    copy = small().load(tmp_path / "c").fit(Support("noise", noise(2)))
    assert copy.known_ == method.known_
    images = noise(2, seed=5)
    assert torch.equal(copy.predict(images).anomaly_map, method.predict(images).anomaly_map)


def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path: Path) -> None:
    method = small().meta_train(Noisy())
    assert method.models_ is not None
    whole = method.models_.state_dict
    for name in ("share", "levels.1.constraintor.kernel"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                method.models_,
                "state_dict",
                lambda name=name: {key: one for key, one in whole().items() if key != name},
            )
            method.save(tmp_path / "c")
        with pytest.raises(FewShotError) as caught:
            small().load(tmp_path / "c")
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_order_of_calls(tmp_path: Path) -> None:
    method, support = small(), Support("noise", noise(2))
    with pytest.raises(NotFittedError, match="ResAD is not meta-trained"):
        method.fit(support)
    with pytest.raises(NotFittedError, match="there is nothing to save"):
        method.save(tmp_path / "c")
    with pytest.raises(NotFittedError, match="ResAD has no support yet"):
        method.meta_train(Noisy()).predict(noise(1))
    method.fit(support).predict(noise(1))
    method.meta_train(Noisy())
    with pytest.raises(NotFittedError, match="no support yet"):
        method.predict(noise(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_everything_meets_on_the_accelerator() -> None:
    method = trained(small(device="cuda", position_dims=8, steps=2))
    assert method.predict(noise(2, seed=5)).anomaly_map.device.type == "cpu"
