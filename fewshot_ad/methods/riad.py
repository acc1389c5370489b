"""RIAD: what of an image cannot be painted in again from its surroundings.

Reconstruction by inpainting for visual anomaly detection. Zavrtanik, Kristan, Skocaj. Pattern
Recognition 112, 2021. https://doi.org/10.1016/j.patcog.2020.107706

The image is cut into cells, which are dealt out to a few disjoint sets. Each set is blanked out in
turn, a U-Net paints it in, and the painted cells of all sets make up a whole image, of which no
pixel was rebuilt from itself. Where its gradients differ from those of the original, at several
scales and for cells of several sizes, the image is anomalous.

Textures can be painted in after a few images; objects need more, and with one or two the network
paints their edges blurred. Deviations: whole images at 64 px instead of 256 and a smaller U-Net
with groups normalised; a fixed budget in steps, where the paper stops on a fifth of the images held
out and lets the learning rate fall; copies are moved and turned a little; gradients are clipped.
Which cells are together is drawn from the seed alone, so that a score hangs on the image and on
nothing else. Maps of all sizes of cells count alike. They are blurred by a Gaussian, where the
paper takes the mean of 21x21 pixels. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.parts.image_losses import dissimilarity, gradient_dissimilarity
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.maps import fuse
from fewshot_ad.parts.parameters import NOT_NEGATIVE, Between, check_parameters
from fewshot_ad.parts.training import step_generator
from fewshot_ad.parts.unet import UNet

__all__ = ["RIAD"]

LAST = -2  # the number of the step that no training has: cells of predict are drawn from it


@dataclass(kw_only=True, eq=False)
class RIAD(ImageMethod):
    """Inpainting by a U-Net; see the module for the paper.

    Attributes:
        cells: sides of the cells in pixels of the inner size, each used in turn (K).
        n_sets: disjoint sets of cells (n).
        scales: sizes at which gradients are compared.
        gms_weight: of the dissimilarity of gradients in the loss (lambda_G).
        ssim_weight: of structural dissimilarity in the loss (lambda_S).
    """

    cells: tuple[int, ...] = (2, 4, 8, 16)
    n_sets: int = 3
    scales: int = 4
    gms_weight: float = 1.0
    ssim_weight: float = 1.0
    width: int = 12
    steps: int = 150
    batch_size: int = 4
    network_: UNet | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "width": 64,
        "steps": 15_000,  # 300 epochs of 200 images
        "learning_rate": 1e-4,
        "blur": 5.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            n_sets=Between(2),
            scales=Between(1, 4),
            gms_weight=NOT_NEGATIVE,
            ssim_weight=NOT_NEGATIVE,
            **self.ALLOWED,
        )
        if not self.cells or not all(1 <= side <= self.inner_size for side in self.cells):
            raise FewShotError(
                f"cells is {self.cells}: expected one side or more, of 1 to {self.inner_size} px"
            )

    def fit(self, support: Support) -> "RIAD":
        """Learn to paint cells in.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        start = colours.mean(dim=(0, 2, 3))
        network = UNet(3, 3, width=self.width, seed=self.seed, start=start).to(colours)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            side = self.cells[int(torch.randint(len(self.cells), (), generator=generator))]
            return self._loss(self._painted(network, images, side, generator), images)

        self.train(network, colours, loss, "fitting RIAD")
        self.network_ = network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Mean dissimilarity of gradients, over cells of all sizes."""
        assert self.network_ is not None
        colours, size = self.colours(image), (self.inner_size, self.inner_size)
        maps = []
        for side in self.cells:
            generator = step_generator(self.seed, LAST)
            rebuilt = self._painted(self.network_, colours, side, generator)
            maps.append(fuse(gradient_dissimilarity(rebuilt, colours, self.scales), size))
        return Judgement(maps)

    def _painted(
        self, network: UNet, images: Colours, side: int, generator: torch.Generator
    ) -> Colours:
        """Images of which every cell was painted in from others (eq. 1)."""
        sets = deal_cells(self.inner_size, side, self.n_sets, generator).to(images.device)
        rebuilt = torch.zeros_like(images)
        for hidden in sets:
            rebuilt = rebuilt + network(images * ~hidden) * hidden
        return rebuilt

    def _loss(self, rebuilt: Colours, images: Colours) -> Float[Tensor, ""]:
        """Equation 5."""
        gradients = gradient_dissimilarity(rebuilt, images, self.scales)
        of_gradients = torch.stack([maps.mean() for maps in gradients]).mean()
        of_structure = dissimilarity(rebuilt, images).mean()
        squared = (rebuilt - images).square().mean()
        return squared + self.gms_weight * of_gradients + self.ssim_weight * of_structure


def deal_cells(
    size: int, side: int, n_sets: int, generator: torch.Generator
) -> Bool[Tensor, "n s s"]:
    """Square cells dealt out to disjoint sets that are equal in number up to one.

    Args:
        size: side of the image, in pixels; the last cells are cut off where they do not fit.
        side: of a cell.
        n_sets: how many.
        generator: of the deal.
    """
    along = -(-size // side)
    dealt = torch.randperm(along * along, generator=generator) % n_sets
    grid = dealt.view(along, along).repeat_interleave(side, 0).repeat_interleave(side, 1)
    return grid[:size, :size] == torch.arange(n_sets).view(-1, 1, 1)
