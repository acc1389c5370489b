"""What a method promises that trains on the support: a budget in steps and a learning rate."""

from fewshot_ad.api import Method, NotFittedError
from fewshot_ad.checks.promises import require, require_refusal
from fewshot_ad.checks.trial import Make, outcome, query, support, usual

DIVERGING = 1e37
"""A learning rate that leaves nothing finite for long."""


def check_another_seed(make: Make) -> None:
    """What is trained from another seed is another network."""
    method = make()
    if not is_trained(method):
        return
    other = outcome(method.variant(seed=method.seed + 1)).image_score
    require(not other.equal(usual(make).image_score), "another seed gives the same scores")


def check_divergence(make: Make) -> None:
    """A loss that is no longer finite ends ``fit``, says when and why, and leaves no prediction."""
    method = make()
    if not is_trained(method):
        return
    method = method.variant(learning_rate=DIVERGING)
    said = require_refusal(lambda: method.fit(support(method)), f"learning_rate={DIVERGING}")
    for word in ("step ", f"learning_rate {DIVERGING}"):
        require(word in said, f"the refusal of learning_rate={DIVERGING} has no '{word}': {said}")
    require_refusal(lambda: method.predict(query(method)), "predict after that", NotFittedError)


def is_trained(method: Method) -> bool:
    """Whether ``fit`` trains: a budget in steps at a learning rate, and a track that says so."""
    tracks = ("target_tuned", "supervised", "synthetic")
    return method.track in tracks and hasattr(method, "steps") and hasattr(method, "learning_rate")
