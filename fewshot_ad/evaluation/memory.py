"""What a run will hold in memory, told before it begins."""

import math
from collections.abc import Iterable, Sequence

from fewshot_ad.api import Episode, Method
from fewshot_ad.evaluation.evaluator import EXACT_PIXELS
from fewshot_ad.evaluation.map_room import IN_MEMORY
from fewshot_ad.evaluation.queries import KEPT_BYTES
from fewshot_ad.images import EvalSize
from fewshot_ad.parts.feature_cache import MADE_BYTES, MISSES_AT_ONCE
from fewshot_ad.parts.map_methods import BackboneMethod

FLOAT = 4
LARGE = 10**9  # bytes below which nobody need be told
NATIVE = 1024  # side in pixels that masks of unknown size are taken to have
BANKS = 3  # copies of the support's features: as they are, as rows, made ready for search
ACTIVATIONS = 4  # of a forward pass, in the size of the features that come out
BYTES_PER_PIXEL = 12  # of the metrics: the aligned map, its mask, and what is sorted
SEARCH = 2**27  # blocks of products and of differences; the same for any bank


def memory_needed(
    method: Method, trials: Sequence[Episode], eval_size: EvalSize = 256
) -> dict[str, int]:
    """Bytes that the episodes of one class need at most, besides the libraries, by what holds them.

    ========  ====================================================================================
    images    the query, kept between episodes where it is small enough, and the largest support
    features  of all images that are shown or judged, as far as the cache keeps them, and patches
    bank      the largest support's features, in all the forms in which a method may hold them
    maps      one per query image, unless they are kept in a file, and what the pixel metrics sort
    scores    of a batched method, which lets every image judge every other
    work      the weights, one forward pass and the blocks of a search
    ========  ====================================================================================

    The sizes are worked out from the numbers of images, the size they are resized to and the
    channels of the backbone; nothing is run. Not told: what training holds, and the networks of
    methods that have no backbone of ``parts.backbones``. Masks whose size only their files tell
    count as 1024 pixels square.
    """
    side, shots = method.preprocess.size, max(episode.shots for episode in trials)
    queries = max(len(episode.query) for episode in trials)
    image = 3 * side**2 * FLOAT
    pixels = queries * (NATIVE if eval_size == "native" else eval_size) ** 2
    kept = queries * image
    needed = {
        "images": (kept if kept <= KEPT_BYTES else 0) + (shots + MISSES_AT_ONCE) * image,
        "maps": min(queries * side**2 * FLOAT, IN_MEMORY)
        + min(pixels, EXACT_PIXELS) * BYTES_PER_PIXEL,
        "work": SEARCH,
    }
    if isinstance(method, BackboneMethod):
        needed |= _of_features(method, trials, shots, queries, needed["work"])
    return needed


def memory_line(
    methods: Iterable[Method],
    trials: Iterable[Sequence[Episode]],
    eval_size: EvalSize,
    workers: int = 1,
) -> str | None:
    """What the hungriest methods and classes will hold, as one line; None where it is little."""
    groups = list(trials)
    every = [memory_needed(method, each, eval_size) for method in methods for each in groups]
    hungriest = sorted(every, key=lambda needed: sum(needed.values()))[-workers:]
    total = sum(sum(needed.values()) for needed in hungriest)
    if total <= LARGE:
        return None
    names = dict.fromkeys(name for needed in hungriest for name in needed)
    parts = {name: sum(needed.get(name, 0) for needed in hungriest) / 1e9 for name in names}
    told = [f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05]
    return f"this will hold up to {total / 1e9:.1f} GB: {', '.join(told)}"


def _of_features(
    method: BackboneMethod, trials: Sequence[Episode], shots: int, queries: int, work: int
) -> dict[str, int]:
    backbone, side = method.features.backbone, method.preprocess.size
    grids = [math.ceil(side / stride) ** 2 for stride in backbone.strides]
    size = FLOAT * sum(c * grid for c, grid in zip(backbone.channels, grids, strict=True))
    shown = {sample for each in trials for sample in (*each.support, *each.query)}
    finest = FLOAT * max(grids) * sum(backbone.channels)  # of an image, as patches
    needed = {
        "features": min(len(shown) * size, method.features.max_bytes)
        + min(len(shown) * finest, MADE_BYTES),
        "bank": BANKS * shots * max(size, finest),
        "work": work + FLOAT * backbone.parameters + ACTIVATIONS * MISSES_AT_ONCE * size,
    }
    if method.track == "batched":
        needed["scores"] = FLOAT * queries * (queries + shots) * max(grids)
        needed["bank"] += BANKS * queries * size
    return needed
