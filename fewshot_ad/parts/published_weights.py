"""Every set of weights that the package names: what it is for, its size, licence, source, digest.

Facts only; adding weights is adding an entry here. Digests are of files as they were published. A
release that prints only the beginning of a SHA-256 is pinned by that; what is not known is not
pinned. Nothing heavy is imported here, and nothing is fetched.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Family = Literal["backbone", "clip", "mae", "unknown"]

HUB = "https://huggingface.co"
TIMM_RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"
TORCH_RELEASE = "https://download.pytorch.org/models"
CLIP_RELEASE = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
TINY_SHA256 = "eabf455d15088ad0cfd88d00c2f4fdf7f19cd38e115e6f90771cfb25fd1669b3"
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """One set of weights as its makers published it.

    Attributes:
        name: as it is typed; in a folder of weights the file is called so.
        family: what can be built from them.
        purpose: what the package does with it.
        megabytes: of the whole file, in 10^6 bytes; None where nobody knows before fetching.
        licence: as the publisher states it.
        repository: on the Hugging Face hub; empty where these weights are not there.
        files: their names in the repository, the preferred one first.
        url: of a file outside the hub; the cache of torch keeps it under its last part.
        sha256: for a suffix of the published file, its digest or how that begins, where known.
        tensor: name and shape of one that other architectures do not have.
        note: what to look out for.
        embedded: the file, where it travels with the package.
    """

    name: str
    family: Family
    purpose: str
    megabytes: float | None
    licence: str
    repository: str = ""
    files: tuple[str, ...] = ()
    url: str = ""
    sha256: dict[str, str] = field(default_factory=dict)
    tensor: tuple[str, tuple[int, ...]] | None = None
    note: str = ""
    embedded: Path | None = None

    @property
    def file_stem(self) -> str:
        """What the file is called in a folder of weights, without its suffix."""
        return self.name.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """What the file is called in a folder of weights, as it is fetched."""
        if self.embedded:
            return self.embedded.name
        return self.file_stem + Path(self.files[0] if self.files else self.url).suffix

    @property
    def source(self) -> str:
        """The address where the weights are published; empty for embedded ones."""
        return f"{HUB}/{self.repository}" if self.repository else self.url


def release_digest(url: str) -> dict[str, str]:
    """How the SHA-256 of a released file begins, by its suffix: ``...-8fb26589.pt`` says it."""
    found = re.search(r"-([0-9a-f]{8,64})(\.\w+)$", url)
    return {found[2]: found[1]} if found else {}


def _timm(name: str, megabytes: float, licence: str, url: str, purpose: str) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        family="backbone",
        purpose=purpose,
        megabytes=megabytes,
        licence=licence,
        repository=f"timm/{name}",
        files=HUB_FILES,
        url=url,
        sha256=release_digest(url),
    )


def _clip(
    name: str, megabytes: float, licence: str, repository: str, grid: tuple[int, int]
) -> PublishedWeights:
    """``grid`` is the number of tokens and the width of the image tower."""
    return PublishedWeights(
        name=name,
        family="clip",
        purpose="winclip with another CLIP",
        megabytes=megabytes,
        licence=licence,
        repository=repository,
        files=CLIP_FILES,
        tensor=("visual.positional_embedding", grid),
    )


def _mae(size: str, megabytes: float, width: int, purpose: str) -> PublishedWeights:
    return PublishedWeights(
        name=f"facebook/vit-mae-{size}",
        family="mae",
        purpose=purpose,
        megabytes=megabytes,
        licence="apache-2.0",
        repository=f"facebook/vit-mae-{size}",
        files=HUB_FILES,
        tensor=("vit.embeddings.cls_token", (1, 1, width)),
        note="converted from a release under cc-by-nc-4.0; the hub's card says apache-2.0",
    )


_PLUS_240 = ("visual.positional_embedding", (226, 896))

PUBLISHED = (
    PublishedWeights(
        name="tiny",
        family="backbone",
        purpose="the default backbone",
        megabytes=2.7,
        licence="as this package",
        sha256={".safetensors": TINY_SHA256},
        embedded=Path(__file__).with_name("tiny.safetensors"),
    ),
    _timm(
        "wide_resnet50_2.racm_in1k",
        275.8,
        "apache-2.0",
        f"{TIMM_RELEASE}/wide_resnet50_racm-8234f177.pth",
        "the backbone of the papers of patchcore, resad and resad_pp",
    ),
    _timm(
        "resnet18.tv_in1k",
        46.8,
        "bsd-3-clause",
        f"{TORCH_RELEASE}/resnet18-f37072fd.pth",
        "a small backbone",
    ),
    _timm(
        "resnet34.tv_in1k",
        87.3,
        "bsd-3-clause",
        f"{TORCH_RELEASE}/resnet34-b627a593.pth",
        "a backbone of middle size",
    ),
    _timm(
        "resnet50.tv_in1k",
        102.4,
        "bsd-3-clause",
        f"{TORCH_RELEASE}/resnet50-0676ba61.pth",
        "a backbone of middle size",
    ),
    _timm(
        "mobilenetv2_100.ra_in1k",
        14.2,
        "apache-2.0",
        f"{TIMM_RELEASE}/mobilenetv2_100_ra-b33bc2c4.pth",
        "the lightest backbone",
    ),
    _timm(
        "efficientnet_b4.ra2_in1k",
        77.9,
        "apache-2.0",
        f"{TIMM_RELEASE}/efficientnet_b4_ra2_320-7eb33cd5.pth",
        "a backbone of another family",
    ),
    PublishedWeights(
        name="ViT-B-16-plus-240.laion400m_e31",
        family="clip",
        purpose="winclip as its reimplementations load it",
        megabytes=833.5,
        licence="mit",
        repository="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        files=CLIP_FILES,
        url=f"{CLIP_RELEASE}/vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
        sha256={
            ".pt": "8fb26589",
            ".bin": "fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3",
        },
        tensor=_PLUS_240,
        note="the digest of the .bin file was reported by a user, not by the publisher",
    ),
    PublishedWeights(
        name="ViT-B-16-plus-240.laion400m_e32",
        family="clip",
        purpose="winclip's default",
        megabytes=833.5,
        licence="mit",
        url=f"{CLIP_RELEASE}/vit_b_16_plus_240-laion400m_e32-699c4b84.pt",
        sha256={".pt": "699c4b84"},
        tensor=_PLUS_240,
        note="open_clip's hub entry for e32 holds the weights of e31; this file is the real e32",
    ),
    _clip(
        "ViT-B-32.laion2b_s34b_b79k",
        605.1,
        "mit",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        (50, 768),
    ),
    _clip(
        "ViT-B-16.laion2b_s34b_b88k",
        598.5,
        "mit",
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        (197, 768),
    ),
    _clip(
        "ViT-L-14.laion2b_s32b_b82k",
        1710.5,
        "mit",
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        (257, 1024),
    ),
    _clip(
        "ViT-L-14-336.openai",
        1711.8,
        "apache-2.0",
        "timm/vit_large_patch14_clip_336.openai",
        (577, 1024),
    ),
    _mae("base", 447.6, 768, "maeday, quicker"),
    _mae("large", 1318.2, 1024, "maeday's default"),
    _mae("huge", 2628.3, 1280, "maeday, larger, with patches of 14 px"),
)

PINNED = dict(
    entry.name.split(".") for entry in PUBLISHED if entry.family == "backbone" and entry.repository
)
"""Networks of timm to the tag that the bare name stands for."""
