import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.boundary import RunningBoundary
from fewshot_ad.parts.level_models import (
    LevelModel,
    LevelModels,
    LikelihoodPeak,
    ResidualScale,
    flow_inputs,
    lengths,
)
from fewshot_ad.parts.training import Adam


class Weighted(LevelModel):
    """Scores by a weighted sum over channels; a step adds one to the weight."""

    def __init__(self, channels: int, weight: float = 1.0) -> None:
        super().__init__()
        self.scale = ResidualScale()
        self.weight = torch.nn.Parameter(torch.full((channels,), weight))
        self.boundary = RunningBoundary()
        self.adam = Adam(self, 0.1, 0.0)

    def learn(self, residuals: Tensor, cells: Tensor, step: int, generator: object) -> None:
        self.boundary.update(float(step))
        self.adam.step(lambda: self.score(residuals).mean())

    def score(self, residuals: Tensor) -> Tensor:
        return (self.weight[:, None, None] * residuals).sum(dim=1)


@pytest.fixture
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(4, 3, 6, 6, generator=generator), torch.randn(4, 5, 3, 3)]


def models() -> LevelModels:
    return LevelModels([Weighted(3, 2.0), Weighted(5, -1.0)], "signed")


def test_every_level_is_registered_once(maps: list[Tensor]) -> None:
    names = list(models().state_dict())
    assert "levels.0.weight" in names
    assert len([name for name in names if name.endswith("weight")]) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_scores_mix_what_is_scaled_by_known_normals(maps: list[Tensor], share: float) -> None:
    both = models()
    classes = [[level[:1] for level in maps], [level[1:] for level in maps]]
    both.rescale(classes)
    both.share.fill_(share)
    plain = [[level.norm(dim=1) for level in one] for one in classes]
    flat = [torch.cat([level.flatten() for level in one]) for one in plain]
    mean, deviation = by_class(flat)
    for number, (weight, ours) in enumerate(zip((2.0, -1.0), both.scores(maps), strict=True)):
        raw = weight * maps[number].sum(dim=1)
        centre, spread = by_class([raw[:1].flatten(), raw[1:].flatten()])
        distance = (maps[number].norm(dim=1) - mean) / deviation
        expected = share * (raw - centre) / spread + (1 - share) * distance
        torch.testing.assert_close(ours, expected)


def by_class(values: list[Tensor]) -> tuple[float, float]:
    """Mean and spread in which a class of one image weighs as much as one of three."""
    mean = sum(float(each.mean()) for each in values) / len(values)
    variance = sum(float(((each - mean) ** 2).mean()) for each in values) / len(values)
    return mean, variance**0.5


def test_lengths_are_those_of_the_residuals_in_either_form(maps: list[Tensor]) -> None:
    expected = torch.linalg.vector_norm(maps[0], dim=1)
    torch.testing.assert_close(lengths(maps[0], "signed"), expected)
    torch.testing.assert_close(lengths(maps[0].square(), "squared"), expected)


def test_constant_scores_are_scaled_to_nothing_infinite() -> None:
    both = LevelModels([Weighted(2)], "signed")
    both.rescale([[torch.zeros(2, 2, 3, 3)]])
    assert torch.equal(both.scores([torch.zeros(1, 2, 3, 3)])[0], torch.zeros(1, 3, 3))


def test_scaled_residuals_of_known_normals_measure_one() -> None:
    scale = ResidualScale()
    classes = [torch.full((3, 2, 2, 2), 1.0), torch.full((1, 2, 2, 2), 7.0)]
    scale.measure(classes)  # a mean square of 1 and one of 49, weighing alike
    torch.testing.assert_close(scale(torch.full((1, 2, 1, 1), 5.0)), torch.ones(1, 2, 1, 1))
    scale.measure([torch.zeros(1, 1, 2, 2)])
    assert scale(torch.zeros(1, 1, 2, 2)).isfinite().all()


def test_peak_is_the_greatest_of_the_normals_last_measured() -> None:
    peak, values = LikelihoodPeak(), torch.tensor([3.0, 9.0, -1.0])
    assert torch.equal(peak.lacking(values), torch.zeros(3))
    peak.measure([torch.tensor([20.0])])
    peak.measure([torch.tensor([[3.0, 2.0]]), torch.tensor([[4.0]])])
    assert torch.equal(peak.lacking(values), torch.tensor([1.0, -5.0, 5.0]))


def test_flow_inputs_pair_every_vector_with_its_place(maps: list[Tensor]) -> None:
    every = torch.arange(maps[0][:, 0].numel())
    vectors, places = flow_inputs(maps[0], 8, every)
    rows = torch.tensor([5, 0, 77])
    some, their_places = flow_inputs(maps[0], 8, rows)
    assert places is not None
    assert their_places is not None
    assert torch.equal(some, vectors[rows])
    assert torch.equal(their_places, places[rows])
    assert torch.equal(vectors[36 + 6 + 2], maps[0][1, :, 1, 2])
    assert torch.equal(places[36 + 6 + 2], places[6 + 2])
    assert flow_inputs(maps[0], 0, every)[1] is None


def test_progress_holds_what_a_step_changes(maps: list[Tensor]) -> None:
    unbroken, broken = Weighted(3), Weighted(3)
    for step in range(4):
        unbroken.learn(maps[0], maps[0] > 0, step, None)
        if step < 2:
            broken.learn(maps[0], maps[0] > 0, step, None)
    resumed = Weighted(3)
    resumed.load_state_dict(broken.state_dict())
    resumed.take_progress(broken.progress())
    for step in (2, 3):
        resumed.learn(maps[0], maps[0] > 0, step, None)
    assert torch.equal(resumed.weight, unbroken.weight)
    assert resumed.boundary == unbroken.boundary
