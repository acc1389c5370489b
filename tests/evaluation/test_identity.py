from painted import MeanColour

from fewshot_ad.evaluation.identity import preset_of
from fewshot_ad.methods import load_method


def test_the_preset_is_told_by_what_the_paper_names() -> None:
    method = load_method("fastflow")
    paper = method.variant(**type(method).PAPER)
    assert preset_of(method) == "quick"
    assert preset_of(paper) == "paper"
    assert preset_of(method.variant(steps=7)) == preset_of(paper.variant(steps=7)) == "own"
    assert preset_of(method.variant(seed=3, batch_size=2)) == "quick"


def test_where_the_defaults_are_the_papers_there_is_none() -> None:
    assert preset_of(MeanColour()) == preset_of(load_method("residual_distance")) == ""
