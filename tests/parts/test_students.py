import math

import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import load_backbone
from fewshot_ad.parts.cosines import cosine_distances
from fewshot_ad.parts.students import Decoder, RedrawnCopy, Student, support_views


class Odd(nn.Module):
    """A user's network whose grids are no halves of each other."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [
            nn.functional.adaptive_avg_pool2d(images, max(1, images.shape[-1] // stride))
            for stride in (5, 14, 14)
        ]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "name", ["random:tiny", "random:resnet18", f"{__file__}:Odd", "random:vit_tiny_patch16_224"]
)
def test_students_and_decoders_fit_any_backbone(name: str, images: Tensor) -> None:
    backbone = load_backbone(name)
    taught = backbone(images)
    for learned in (Student(backbone, 8, 0)(images, taught), Decoder(backbone, 8, 0)(taught)):
        assert [maps.shape for maps in learned] == [maps.shape for maps in taught]


@pytest.mark.parametrize("levels", [(1,), (3,), (2, 3)])
def test_any_levels_will_do(levels: tuple[int, ...], images: Tensor) -> None:
    backbone = load_backbone("random:tiny", levels=levels)
    taught = backbone(images)
    for learned in (Student(backbone, 8, 0)(images, taught), Decoder(backbone, 8, 0)(taught)):
        assert [maps.shape for maps in learned] == [maps.shape for maps in taught]


def test_one_position_in_one_image_can_be_learned_from(images: Tensor) -> None:
    backbone = load_backbone("random:tiny")
    taught = backbone(images[:1, :, :16, :16])
    decoder = Decoder(backbone, 8, 0).train()
    assert taught[-1].shape[-2:] == (1, 1)
    sum(maps.square().sum() for maps in decoder(taught)).backward()
    assert all(weight.grad.isfinite().all() for weight in decoder.parameters())


def test_training_mode_and_neighbours_change_nothing(images: Tensor) -> None:
    backbone = load_backbone("random:tiny")
    student, taught = Student(backbone, 8, 0), backbone(images)
    learning = student.train()(images, taught)
    alone = student.eval()(images[:1], [maps[:1] for maps in taught])
    for one, other in zip(learning, alone, strict=True):
        torch.testing.assert_close(one[:1], other)


def test_the_bottleneck_is_the_only_way() -> None:
    """The deepest grid is halved once more, so that the code is narrower than any level."""
    backbone = load_backbone("random:tiny")
    decoder = Decoder(backbone, 4, 0)
    codes = []
    decoder.bottleneck.register_forward_hook(lambda *call: codes.append(call[-1]))
    decoder(backbone(torch.zeros(1, 3, 64, 64)))
    assert codes[0].shape == (1, 32, 2, 2)


def test_weights_come_from_the_seed_and_from_nothing_else() -> None:
    backbone, state = load_backbone("random:tiny"), torch.get_rng_state()
    for build in (
        lambda seed: Student(backbone, 4, seed),
        lambda seed: Decoder(backbone, 4, seed),
        lambda seed: RedrawnCopy("random:tiny", (1, 2, 3), seed),
    ):
        one, same, other = (
            torch.cat([w.flatten() for w in build(s).parameters()]) for s in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_copy_learns_all_and_knows_nothing(images: Tensor) -> None:
    backbone = load_backbone("random:tiny", levels=(2, 3))
    copy = RedrawnCopy("random:tiny", (2, 3), 0)
    taught = backbone(images)
    with torch.no_grad():
        found = copy(images, taught)
    assert [maps.shape for maps in found] == [maps.shape for maps in taught]
    assert min(float(each.mean()) for each in cosine_distances(taught, found)) > 0.1
    assert all(weight.requires_grad for weight in copy.parameters())


def test_a_network_of_the_users_own_cannot_be_redrawn() -> None:
    with pytest.raises(FewShotError, match=r"of your own.*choose student=compact"):
        RedrawnCopy(f"{__file__}:Odd", (1, 2, 3), 0)


@pytest.mark.parametrize(("count", "least"), [(1, 1), (1, 7), (2, 7), (2, 2)])
def test_views_begin_with_the_support(images: Tensor, count: int, least: int) -> None:
    support = images[:count].clone()
    views = support_views(support, least, seed=3)
    assert len(views) == count * math.ceil(least / count)
    assert torch.equal(views[:count], images[:count])
    assert torch.equal(support, images[:count])
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    assert torch.equal(views, support_views(support, least, seed=3))
    assert len(views) == count or not torch.equal(views, support_views(support, least, seed=4))
