import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.intra import InTra, windows
from fewshot_ad.parts.image_losses import dissimilarity, gradient_dissimilarity


def small(**changes) -> InTra:
    settings = {
        "device": "cpu",
        "preprocess": Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        "inner_size": 32,
        "window": 3,
        "width": 16,
        "heads": 2,
        "blocks": 3,
        "batch_size": 2,
        "hidden_patches": 4,
        "steps": 2,
    }
    return InTra(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    """Four noisy plates."""
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    return 0.02 * noise + 0.5 * torch.linspace(0, 12, 32).sin()


@pytest.mark.parametrize(("side", "size"), [(5, 3), (6, 5), (2, 7), (4, 4)])
def test_a_window_holds_its_patch_as_near_to_the_middle_as_the_border_lets_it(
    side: int, size: int
) -> None:
    found = windows(side, size)
    size = min(size, side)
    for row in range(side):
        for column in range(side):
            top = min(max(row - size // 2, 0), side - size)
            left = min(max(column - size // 2, 0), side - size)
            expected = [
                y * side + x for y in range(top, top + size) for x in range(left, left + size)
            ]
            assert found[row * side + column].tolist() == expected
            assert row * side + column in expected


def test_a_patch_is_painted_from_its_window_alone_and_unseen(images: Tensor) -> None:
    """One patch, by hand: embedded, hidden, located; the way round the middle block is added."""
    network = fitted(small(), images)
    vectors = torch.rand(2, 16, 192, generator=torch.Generator().manual_seed(3))
    painted = network(vectors, torch.tensor([[5, 0], [9, 9]]))
    members = [0, 1, 2, 4, 5, 6, 8, 9, 10]  # 3 x 3 about row 1, column 1 of a 4 x 4 grid
    position = network.position((4, 4))[0]
    tokens = torch.stack([network.embed(vectors[0, n]) + position[n] for n in members])
    tokens[4] = network.unknown + position[5]
    first = network.blocks[0](tokens[None])
    second = network.blocks[1](first)
    third = network.blocks[2](second + first)
    torch.testing.assert_close(painted[0, 0], network.pixels(third[0, 4]), rtol=1e-4, atol=1e-5)
    elsewhere = vectors.clone()
    elsewhere[0, 5], elsewhere[0, 3], elsewhere[0, 15] = 9.0, 9.0, 9.0  # itself, and far ones
    again = network(elsewhere, torch.tensor([[5, 0], [9, 9]]))
    torch.testing.assert_close(again[0, 0], painted[0, 0])


def test_queries_and_keys_are_found_by_two_layers(images: Tensor) -> None:
    attention = fitted(small(heads=1), images).blocks[0].attention
    tokens = torch.rand(1, 5, 16, generator=torch.Generator().manual_seed(3))

    def two_layers(layers: nn.Sequential) -> Tensor:
        return layers[2](functional.gelu(layers[0](tokens)))

    likeness = two_layers(attention.query) @ two_layers(attention.key).mT / 4
    expected = attention.output(likeness.softmax(dim=2) @ attention.value(tokens))
    torch.testing.assert_close(attention(tokens), expected)


def test_the_loss_adds_three_differences_of_patches(images: Tensor) -> None:
    method = small(gradient_weight=0.3, structure_weight=0.2)
    generator = torch.Generator().manual_seed(3)
    painted, wanted = (torch.rand(1, 2, 192, generator=generator) for _ in range(2))
    total = 0.0
    for one, other in zip(painted[0], wanted[0], strict=True):
        pair = one.view(1, 3, 8, 8), other.view(1, 3, 8, 8)
        total += float((one - other).square().mean())
        total += 0.3 * float(gradient_dissimilarity(*pair)[0].mean())
        total += 0.2 * float(dissimilarity(*pair).mean())
    assert float(method._loss(painted, wanted)) == pytest.approx(total / 2, rel=1e-5)


def test_map_is_the_squared_difference_to_the_usual_one(images: Tensor) -> None:
    method = small(blur=1.0).fit(Support("plate", images[:2]))
    network = method.network_
    assert network is not None

    def difference(image: Tensor) -> np.ndarray:
        colours = (0.5 * image[None] + 0.5).clamp(0, 1)
        painted = torch.zeros(1, 3, 32, 32)
        corners = [(y, x) for y in range(0, 32, 8) for x in range(0, 32, 8)]
        patches = [colours[0, :, y : y + 8, x : x + 8].flatten() for y, x in corners]
        for number, (y, x) in enumerate(corners):
            with torch.no_grad():
                drawn = network(torch.stack(patches)[None], torch.tensor([[number]]))
            painted[0, :, y : y + 8, x : x + 8] = drawn.view(3, 8, 8)
        total = torch.zeros(1, 1, 32, 32)
        for level in gradient_dissimilarity(painted, colours):
            total += functional.interpolate(level[:, None], (32, 32), mode="bilinear") / 4
        return total[0, 0].double().numpy()

    usual = (difference(images[0]) + difference(images[1])) / 2
    expected = gaussian_filter((difference(images[2]) - usual) ** 2, 1.0)
    found = method.predict(images[2:3])
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_training_learns_to_paint(images: Tensor) -> None:
    errors = []
    for steps in (1, 60):
        network = fitted(small(steps=steps, learning_rate=3e-3, shift=0.0, turn=0.0), images)
        colours = 0.5 * images[:1] + 0.5
        with torch.no_grad():
            errors.append(float((network.paint(colours) - colours).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_painted_square_lights_up(images: Tensor) -> None:
    method = small(steps=60, learning_rate=3e-3, blur=1.0).fit(Support("plate", images[:3]))
    defect = images[3:].clone()
    defect[:, :, 8:16, 16:24] = 2 * torch.eye(8) - 1
    found = method.predict(torch.cat([images[3:], defect]))
    inside = found.anomaly_map[1, 8:16, 16:24].mean()
    assert inside > 2 * found.anomaly_map[1, 24:, :8].mean()
    assert found.image_score[1] > found.image_score[0]


def fitted(method: InTra, images: Tensor):
    network = method.fit(Support("plate", images)).network_
    assert network is not None
    return network
