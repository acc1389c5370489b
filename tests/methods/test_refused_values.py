"""Values that a method cannot use are refused when it is made, in a line that says what it can.

What no method at all can use, such as 0 steps, is a check of the contract.
"""

from typing import Any

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.methods import load_method

OUT_OF_RANGE: list[tuple[str, str, Any, str]] = [
    ("adtr", "layers", 0, "1 or more"),
    ("anoddpm", "frequency", 0.0, "more than 0"),
    ("anoddpm", "octaves", 0, "1 or more"),
    ("anoddpm", "reach", 1000, "1 to 999"),
    ("anoddpm", "stride", 30, "a divisor of timesteps 1000 and of reach 250"),
    ("anoddpm", "width", 12, "a multiple of 8"),
    ("anomalydino", "mask_threshold", -1.0, "0 or more"),
    ("anomalydino", "rotations", 0, "1 or more"),
    ("anomalydino", "top_share", 0.0, "more than 0, 1 at most"),
    ("anovit", "inner_size", 8, "16 or more"),
    ("autoencoder", "inner_size", 48, "(16, 32, 64, 128, 256, 512)"),
    ("autoencoder", "inner_size", 8, "(16, 32"),
    ("autoencoder", "kl_weight", -1.0, "0 or more"),
    ("autoencoder", "latent", 0, "1 or more"),
    ("autoencoder", "shift", -0.1, "0 to 1"),
    ("autoencoder", "turn", 200.0, "0 to 180"),
    ("bgad", "boundary_quantile", 1.0, "0 to 0.99"),
    ("bgad", "boundary_weight", -1.0, "0 or more"),
    ("bgad", "flow_blocks", 0, "1 or more"),
    ("bgad", "margin", -0.1, "0 or more"),
    ("bgad", "normalizer", 0.0, "more than 0"),
    ("bgad", "position_dims", 6, "a multiple of 4, or 0"),
    ("bgad", "warm_up", 1.5, "0 to 1"),
    ("cflow", "flow_blocks", 0, "1 or more"),
    ("cflow", "noise", -0.1, "0 or more"),
    ("cflow", "position_dims", 6, "a multiple of 4, or 0"),
    ("dfr", "explained", 0.0, "more than 0, 1 at most"),
    ("dfr", "explained", 1.1, "more than 0, 1 at most"),
    ("dfr", "vectors_per_step", 3, "4 or more"),
    ("differnet", "clamping", 0.0, "more than 0"),
    ("differnet", "flow_blocks", 0, "1 or more"),
    ("differnet", "rotation", -1.0, "0 to 180"),
    ("differnet", "rotation", 181.0, "0 to 180"),
    ("differnet", "views", 0, "1 or more"),
    ("dinomaly", "dropout", 1.0, "0 to 0.99"),
    ("dinomaly", "easy_share", 2.0, "0 to 1"),
    ("dinomaly", "top_share", 0.0, "more than 0, 1 at most"),
    ("draem", "clean", 1.5, "0 to 1"),
    ("draem", "focal_gamma", -1.0, "0 or more"),
    ("draem", "ssim_weight", -1.0, "0 or more"),
    ("efficientad", "code", 0, "1 or more"),
    ("efficientad", "hard_share", 0.0, "more than 0, 1 at most"),
    ("efficientad", "texture_views", 0, "1 or more"),
    ("fastflow", "flow_blocks", 0, "1 or more"),
    ("fastflow", "hidden_ratio", 0.0, "more than 0"),
    ("fastflow", "learning_rate", -1.0, "more than 0"),
    ("fastflow", "noise", -0.1, "0 or more"),
    ("fcdd", "hidden", 0, "1 or more"),
    ("fcdd", "painted_views", 0, "1 or more"),
    ("fcdd", "sigma", 0.0, "more than 0"),
    ("fcdd", "top_share", 0.0, "more than 0, 1 at most"),
    ("ganomaly", "adversarial_weight", -1.0, "0 or more"),
    ("ganomaly", "inner_size", 48, "(16, 32, 64, 128, 256, 512)"),
    ("ganomaly", "latent", 0, "1 or more"),
    ("glass", "ascent_rate", -1.0, "0 or more"),
    ("glass", "ascent_steps", -1, "0 or more"),
    ("glass", "hidden", 0, "1 or more"),
    ("glass", "neighbourhood", 2, "an odd number"),
    ("glass", "noise", 0.0, "more than 0"),
    ("glass", "painted_views", 0, "1 or more"),
    ("inp_former", "hardness", -1.0, "0 or more"),
    ("inp_former", "prototypes", 0, "1 or more"),
    ("inp_former", "top_share", 0.0, "more than 0, 1 at most"),
    ("intra", "hidden_patches", 0, "1 or more"),
    ("intra", "patch", 4, "6 or more"),
    ("intra", "window", 4, "an odd number"),
    ("maeday", "blur", -1.0, "0 or more"),
    ("maeday", "learning_rate", 0.0, "more than 0"),
    ("maeday", "mask_ratio", 0.0, "more than 0 and less than 1"),
    ("maeday", "mask_ratio", 1.0, "more than 0 and less than 1"),
    ("maeday", "masks", 0, "1 or more"),
    ("maeday", "rank", 0, "1 or more"),
    ("maeday", "smallest_crop", 1.5, "0 to 1"),
    ("maeday", "steps", -1, "0 or more"),
    ("maeday", "weight_decay", -1.0, "0 or more"),
    ("ocr_gan", "feature_weight", -1.0, "0 or more"),
    ("ocr_gan", "inner_size", 48, "(16, 32, 64, 128, 256, 512)"),
    ("ocr_gan", "latent", 0, "1 or more"),
    ("padim", "channels", 0, "1 or more"),
    ("padim", "neighbourhood", 2, "an odd number"),
    ("padim", "ridge", 0.0, "1e-09 or more"),
    ("padim", "shrinkage", 1.5, "0 to 1"),
    ("patch_svdd", "dims", 0, "1 or more"),
    ("patch_svdd", "svdd_weight", -1.0, "0 or more"),
    ("patchcore", "coreset_ratio", 0, "more than 0, 1 at most"),
    ("patchcore", "coreset_ratio", 1.5, "more than 0, 1 at most"),
    ("patchcore", "n_neighbors", 0, "1 or more"),
    ("patchcore", "neighbourhood", 2, "an odd number"),
    ("pni", "coreset_ratio", 0.0, "more than 0, 1 at most"),
    ("pni", "temperature", 0.0, "more than 0"),
    ("pni", "window", 4, "an odd number"),
    ("pni", "words", 0, "1 or more"),
    ("pyramidflow", "flow_blocks", 0, "1 or more"),
    ("pyramidflow", "kernel", 4, "an odd number"),
    ("pyramidflow", "level", 0, "1 or more"),
    ("pyramidflow", "pairs", 0, "1 or more"),
    ("pyramidflow", "scales", 1, "2 or more"),
    ("resad", "held_out", 1.5, "0 to 1"),
    ("resad", "position_dims", 6, "a multiple of 4"),
    ("resad_pp", "keep", -0.1, "0 to 1"),
    ("riad", "cells", (), "one side or more, of 1 to 64 px"),
    ("riad", "cells", (2, 128), "one side or more, of 1 to 64 px"),
    ("riad", "gms_weight", -1.0, "0 or more"),
    ("riad", "n_sets", 1, "2 or more"),
    ("riad", "scales", 5, "1 to 4"),
    ("rrd", "noise", -1.0, "0 or more"),
    ("rrd", "projection_weight", -1.0, "0 or more"),
    ("simplenet", "hidden", 0, "1 or more"),
    ("simplenet", "margin", -1.0, "more than 0"),
    ("simplenet", "neighbourhood", 2, "an odd number"),
    ("simplenet", "noise", 0.0, "more than 0"),
    ("spade", "n_neighbors", 0, "1 or more"),
    ("subspacead", "explained", 0.0, "more than 0, 1 at most"),
    ("subspacead", "explained", 1.1, "more than 0, 1 at most"),
    ("subspacead", "rotations", 0, "1 or more"),
    ("subspacead", "top_share", 2.0, "more than 0, 1 at most"),
    ("unet", "depth", 2, "3 to 5"),
    ("unet", "dice_weight", -1.0, "0 or more"),
    ("unet", "inner_size", 16, "32 or more"),
    ("unet", "top", 0.0, "more than 0, 1 at most"),
    ("uniad", "jitter", -1.0, "0 or more"),
    ("uniad", "layers", 0, "1 or more"),
    ("uniad", "masked", 4, "an odd number"),
]
"""Method, field, value and what is expected of it."""

UNSUITED: list[tuple[str, dict[str, Any], str]] = [
    ("adtr", {"width": 15}, "width is 15 and heads is 4: expected a multiple"),
    ("dinomaly", {"width": 15}, "width is 15 and heads is 8: expected a multiple"),
    ("dinomaly", {"blocks": 1}, "blocks is 1 and there are 3 levels: expected as many"),
    ("inp_former", {"width": 15}, "width is 15 and heads is 8: expected a multiple"),
    ("inp_former", {"blocks": 1}, "blocks is 1 and there are 3 levels: expected as many"),
    ("intra", {"inner_size": 36}, "inner_size is 36 and patch is 8: expected a multiple, twice"),
    ("intra", {"width": 15}, "width is 15 and heads is 4: expected a multiple"),
    (
        "intra",
        {"inner_size": 32, "patch": 32},
        "inner_size is 32 and patch is 32: expected a multiple, twice the patch",
    ),
    ("maeday", {"quartered": True, "masks": 6}, "expected 0.75 and a multiple of 4"),
    ("maeday", {"quartered": True, "mask_ratio": 0.5}, "quartered masks with mask_ratio 0.5"),
    ("uniad", {"width": 15}, "width is 15 and heads is 4: expected a multiple"),
]
"""Method, fields that do not suit each other or hold several numbers, and what is said of them."""


@pytest.mark.parametrize(("name", "field", "value", "expected"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused(name: str, field: str, value: Any, expected: str) -> None:
    with pytest.raises(FewShotError) as caught:
        load_method(name).variant(**{field: value})
    assert f"{field} is {value}: expected {expected}" in str(caught.value)


@pytest.mark.parametrize(("name", "changes", "words"), UNSUITED)
def test_values_that_do_not_suit_are_refused(
    name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(FewShotError) as caught:
        load_method(name).variant(**changes)
    assert words in str(caught.value)
