"""Episodes: which images a method is shown and which it judges, frozen before anything is computed.

Supports are drawn by a rule that anyone can repeat, or listed in a manifest file. Either way they
are nested, the N-shot support being the first N of one list, so that curves over shots are paired.
"""

from fewshot_ad.episodes.drawing import draw, draw_anomalous, permuted
from fewshot_ad.episodes.files import list_manifests, load_manifest, save_manifest
from fewshot_ad.episodes.freezing import Shots, digest_samples, episodes
from fewshot_ad.episodes.manifest import Manifest
from fewshot_ad.episodes.resolution import (
    check_manifest,
    draw_manifest,
    leak_warning,
    listed_support,
)

__all__ = [
    "Manifest",
    "Shots",
    "check_manifest",
    "digest_samples",
    "draw",
    "draw_anomalous",
    "draw_manifest",
    "episodes",
    "leak_warning",
    "list_manifests",
    "listed_support",
    "load_manifest",
    "permuted",
    "save_manifest",
]
