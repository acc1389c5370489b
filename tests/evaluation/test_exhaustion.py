import pytest
import torch
from painted import MeanColour

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.exhaustion import saying_what_to_lower
from fewshot_ad.methods import load_method


def test_what_the_allocator_refuses_is_told() -> None:
    method = load_method("cflow", vectors_per_step=77)
    words = r"memory ran out for cflow on auto: .*vectors_per_step \(now 77\), preprocess.size \(n"
    with pytest.raises(FewShotError, match=words), saying_what_to_lower(method):
        torch.empty(2**55)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_other_ways_of_running_out(error: Exception) -> None:
    with (
        pytest.raises(FewShotError, match=r"painted:MeanColour .*preprocess.size \(now 16\)"),
        saying_what_to_lower(MeanColour()),
    ):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), saying_what_to_lower(MeanColour()):
        raise RuntimeError("shapes differ")
