"""AnoDDPM: a little noise is added, a diffusion model takes it away, and anomalies go with it.

AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using Simplex Noise. Wyatt,
Leach, Schmon, Willcocks. CVPR Workshops 2022. https://doi.org/10.1109/CVPRW56347.2022.00080,
code: https://github.com/Julian-Wyatt/AnoDDPM

A U-Net learns to tell the noise in normal images. An image is diffused for a part of the way only,
up to step lambda, and led back; what is normal returns, what is not is painted over, and the
squared difference is the map. Simplex noise has the size of anomalies, where Gaussian noise
(``noise=gaussian``) hides but pixels.

From few images it learns these by heart, so that an image returns as a mixture of the support: with
one or two it compares with a template. Deviations: 64 px, a narrow U-Net and a budget of few steps
without averaging of weights; the way back takes every ``stride``-th step, by the sampler of DDIM
with eta 1, which is DDPM where the stride is 1; two-dimensional noise, of another seed for every
channel, brought to mean 0 and deviation 1, for which the released code is not; the noise of the way
there and back hangs on the seed alone, so that a score hangs on the image and nothing else; copies
are moved and turned a little; gradients are clipped. U-Net and schedule are those of diffusers,
which have been used by many. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.noise import simplex_noise, standardised
from fewshot_ad.parts.parameters import COUNT, POSITIVE, Between, MultipleOf, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.training import step_generator

__all__ = ["AnoDDPM"]

LAST = -2  # the number of a step that no training has: the noise of predict is drawn from it
GROUPS = 8


@dataclass(kw_only=True, eq=False)
class AnoDDPM(ImageMethod):
    """Partial diffusion and the way back; see the module for the paper.

    Attributes:
        noise: ``simplex``, or ``gaussian``.
        frequency: of the first octave in cells per pixel of the inner size (nu).
        octaves: of simplex noise (N).
        persistence: amplitude of an octave over that of the one before (gamma).
        timesteps: of the whole diffusion (T).
        reach: step to which an image is diffused (lambda).
        stride: steps that the way back takes at once.
        width: channels of the first layer, a multiple of 8.
    """

    noise: Literal["simplex", "gaussian"] = "simplex"
    frequency: float = 2**-6
    octaves: int = 6
    persistence: float = 0.8
    timesteps: int = 1000
    reach: int = 250
    stride: int = 125
    steps: int = 400
    batch_size: int = 4
    denoiser_: nn.Module | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "width": 128,
        "stride": 1,
        "steps": 300_000,  # 3000 epochs of 100 images
        "batch_size": 1,
        "learning_rate": 1e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            frequency=POSITIVE,
            octaves=COUNT,
            persistence=POSITIVE,
            timesteps=COUNT,
            reach=Between(1, self.timesteps - 1),
            stride=COUNT,
            **(self.ALLOWED | {"width": MultipleOf(GROUPS, least=GROUPS)}),
        )
        if self.timesteps % self.stride or self.reach % self.stride:
            raise FewShotError(
                f"stride is {self.stride}: expected a divisor of timesteps {self.timesteps} and "
                f"of reach {self.reach}"
            )

    def fit(self, support: Support) -> "AnoDDPM":
        """Learn the noise in images of the support (algorithm 1).

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        denoiser = self._build().to(colours)
        schedule = self._schedule()

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            times = torch.randint(self.timesteps, (len(images),), generator=generator)
            noise = self._draw(images, generator)
            diffused = schedule.add_noise(2 * images - 1, noise, times.to(images.device))
            return (_told(denoiser, diffused, times) - noise).square().mean()

        self.train(denoiser, colours, loss, "fitting AnoDDPM")
        self.denoiser_ = denoiser
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Squared difference of an image and what comes back of it (algorithm 2)."""
        assert self.denoiser_ is not None
        colours = 2 * self.colours(image) - 1
        returned = self._there_and_back(colours, self.denoiser_)
        return Judgement([(returned - colours).square().mean(dim=1)])

    def _there_and_back(self, colours: Colours, denoiser: nn.Module) -> Colours:
        generator = step_generator(self.seed, LAST)
        schedule = self._schedule()
        schedule.set_timesteps(self.timesteps // self.stride)
        time = torch.tensor([self.reach])
        now = schedule.add_noise(colours, self._draw(colours, generator), time.to(colours.device))
        # eta 1 and the clipped output make it the posterior of DDPM; the last step has no variance
        ddpm = {"eta": 1.0, "use_clipped_model_output": True}
        for step in range(self.reach, -1, -self.stride):
            told = _told(denoiser, now, torch.full((len(now),), step))
            fresh = self._draw(colours, generator)
            now = schedule.step(told, step, now, variance_noise=fresh, **ddpm).prev_sample
        return now

    def _draw(self, images: Colours, generator: torch.Generator) -> Colours:
        """Noise of mean 0 and deviation 1."""
        count, channels, height, width = images.shape
        if self.noise == "gaussian":
            return torch.randn(images.shape, generator=generator).to(images)
        fields = simplex_noise(
            count * channels,
            (height, width),
            generator,
            frequency=self.frequency,
            octaves=self.octaves,
            persistence=self.persistence,
        )
        return standardised(fields).view(images.shape).to(images)

    def _schedule(self) -> Any:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler(num_train_timesteps=self.timesteps)  # linear betas, as in the paper

    def _build(self) -> nn.Module:
        from diffusers.models.unets.unet_2d import UNet2DModel

        with seeded_weights(self.seed):
            return UNet2DModel(
                sample_size=self.inner_size,
                block_out_channels=(self.width, 2 * self.width, 4 * self.width),
                down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                norm_num_groups=GROUPS,
            )


def _told(denoiser: nn.Module, diffused: Colours, times: Int[Tensor, " b"]) -> Colours:
    """The noise that a U-Net tells in images."""
    return denoiser(diffused, times.to(diffused.device)).sample
