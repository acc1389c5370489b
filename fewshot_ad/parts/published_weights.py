"""Every set of weights that the package names: what it is for, its size, licence, source, digest.

Facts only, read by ``weight_catalog``; adding weights is adding an entry here. A SHA-256 stands for
the file that has it, and a short one for its beginning, as release pages print it; files whose
digest nobody published have none. Nothing is imported and nothing is fetched here.
"""

from dataclasses import dataclass, field

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MAE_FILES = ("model.safetensors", "pytorch_model.bin")
TIMM_RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"
CLIP_RELEASE = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """One set of weights as its makers published it.

    Attributes:
        name: as it is typed; a file in a weights folder is called so, with a suffix.
        purpose: what the package does with it.
        megabytes: of the whole file, in 10^6 bytes.
        licence: as the publisher states it.
        repository: on the Hugging Face hub; empty where the hub does not have these weights.
        files: names in the repository, the preferred one first.
        url: of a file outside the hub; the torch cache keeps it under its last part.
        sha256: suffix of a file to the digests, or their beginnings, that it may have.
        note: what to look out for.
    """

    name: str
    purpose: str
    megabytes: int
    licence: str
    repository: str = ""
    files: tuple[str, ...] = ()
    url: str = ""
    sha256: dict[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""


def _timm(name: str, purpose: str, megabytes: int, licence: str, url: str) -> PublishedWeights:
    return PublishedWeights(
        name,
        purpose,
        megabytes,
        licence,
        repository=f"timm/{name}",
        files=TIMM_FILES,
        url=url,
        sha256={".pth": (url.rpartition("-")[2].removesuffix(".pth"),)},
    )


def _clip(name: str, megabytes: int, licence: str, repository: str) -> PublishedWeights:
    return PublishedWeights(
        name, "CLIP for winclip", megabytes, licence, repository=repository, files=CLIP_FILES
    )


def _mae(size: str, megabytes: int, purpose: str) -> PublishedWeights:
    return PublishedWeights(
        f"facebook/vit-mae-{size}",
        purpose,
        megabytes,
        "apache-2.0 (the original release: cc-by-nc-4.0)",
        repository=f"facebook/vit-mae-{size}",
        files=MAE_FILES,
    )


PUBLISHED = (
    _timm(
        "wide_resnet50_2.racm_in1k",
        "the backbone of the papers of patchcore, resad and resad_pp",
        276,
        "apache-2.0",
        f"{TIMM_RELEASE}/wide_resnet50_racm-8234f177.pth",
    ),
    _timm(
        "resnet18.tv_in1k",
        "a small backbone",
        47,
        "bsd-3-clause",
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    ),
    _timm(
        "resnet34.tv_in1k",
        "a backbone in between",
        87,
        "bsd-3-clause",
        "https://download.pytorch.org/models/resnet34-b627a593.pth",
    ),
    _timm(
        "resnet50.tv_in1k",
        "a backbone in between",
        102,
        "bsd-3-clause",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    ),
    _timm(
        "mobilenetv2_100.ra_in1k",
        "the quickest backbone",
        14,
        "apache-2.0",
        f"{TIMM_RELEASE}/mobilenetv2_100_ra-b33bc2c4.pth",
    ),
    _timm(
        "efficientnet_b4.ra2_in1k",
        "a backbone that some papers take",
        78,
        "apache-2.0",
        f"{TIMM_RELEASE}/efficientnet_b4_ra2_320-7eb33cd5.pth",
    ),
    PublishedWeights(
        "ViT-B-16-plus-240.laion400m_e31",
        "CLIP for winclip, as its reimplementations load it",
        834,
        "mit",
        repository="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        files=CLIP_FILES,
        url=f"{CLIP_RELEASE}/vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
        sha256={
            ".pt": ("8fb26589",),
            ".bin": ("fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3",),
        },
    ),
    PublishedWeights(
        "ViT-B-16-plus-240.laion400m_e32",
        "CLIP for winclip, one epoch later",
        834,
        "mit",
        url=f"{CLIP_RELEASE}/vit_b_16_plus_240-laion400m_e32-699c4b84.pt",
        sha256={".pt": ("699c4b84",)},
        note="open_clip's hub entry for e32 points at the weights of e31: only this file is e32",
    ),
    _clip("ViT-B-32.laion2b_s34b_b79k", 605, "mit", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    _clip("ViT-B-16.laion2b_s34b_b88k", 598, "mit", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    _clip("ViT-B-16.openai", 598, "apache-2.0", "timm/vit_base_patch16_clip_224.openai"),
    _clip("ViT-L-14.openai", 1710, "apache-2.0", "timm/vit_large_patch14_clip_224.openai"),
    _clip("ViT-L-14-336.openai", 1712, "apache-2.0", "timm/vit_large_patch14_clip_336.openai"),
    _clip("ViT-L-14.laion2b_s32b_b82k", 1710, "mit", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    _clip("ViT-H-14.laion2b_s32b_b79k", 3944, "mit", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    _mae("base", 448, "the small model for maeday"),
    _mae("large", 1318, "the default model of maeday"),
    _mae("huge", 2628, "the largest model for maeday"),
)
