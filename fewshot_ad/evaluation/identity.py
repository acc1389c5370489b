"""What an outcome depends on, known before it is computed, so that finished cells are skipped."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fewshot_ad.api import Dataset, Episode, FewShotError, Method
from fewshot_ad.episodes import digest_samples
from fewshot_ad.evaluation.leaks import KnownNames, seen_by
from fewshot_ad.evaluation.results import Cell
from fewshot_ad.images import EvalSize
from fewshot_ad.prompts import list_prompts, load_prompts

_OUR_METHODS = "fewshot_ad.methods."


def method_name(method: Method) -> str:
    """What ``--method`` takes: the file name of our methods, ``package.module:Class`` of others.

    An adapter of a library says itself what its models are called.
    """
    own: str | None = getattr(method, "method_name", None)
    if own is not None:
        return own
    kind = type(method)
    if kind.__module__.startswith(_OUR_METHODS):
        return kind.__module__.removeprefix(_OUR_METHODS).partition(".")[0]
    return f"{kind.__module__}:{kind.__qualname__}"


def method_identity(method: Method) -> dict[str, Any]:
    """Name, parameters, recipe, backbone and weights of a method, by the names they have in a cell.

    Parameters tell the digest of a prompt file besides its path, since files change.

    Raises:
        FewShotError: a parameter is not JSON-able, or a prompt file cannot be read.
    """
    return {
        "method": method_name(method),
        "params": _as_json(method) | _prompts_digest(method),
        "recipe": getattr(method, "recipe", 1),
        "track": method.track,
        "backbone": getattr(method, "backbone", None),
        "weights_digest": getattr(method, "weights_digest", None),
    }


def preset_of(method: Method) -> str:
    """Which of its two presets a method has: ``quick``, ``paper``, or ``own`` for neither.

    ``PAPER`` names what the presets differ in, and nothing else counts. Empty without it.
    """
    paper: Mapping[str, Any] = getattr(type(method), "PAPER", {})
    if not paper:
        return ""
    values = {name: getattr(method, name) for name in paper}
    if values == dict(paper):
        return "paper"
    ours = type(method)()
    return "quick" if values == {name: getattr(ours, name) for name in paper} else "own"


def known_digest(known: KnownNames) -> str:
    """Short digest of the known classes: their own, which knows the order too, if they have one."""
    own: str | None = getattr(known, "digest", None)
    if own is not None:
        return own
    text = json.dumps([sorted(known.names), sorted(known.digests)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell_of(
    method: Method,
    dataset: Dataset,
    episode: Episode,
    *,
    eval_size: EvalSize = 256,
    known: KnownNames | None = None,
    extra: Mapping[str, Any] | None = None,
    query_digest: str | None = None,
) -> Cell:
    """The cell that ``evaluate`` would fill.

    Args:
        method: the configuration; it need not be fitted or meta-trained.
        dataset: where the episode comes from.
        episode: the trial.
        eval_size: side in pixels at which maps meet masks, or ``native``.
        known: the classes of meta-training; by default those that the method remembers.
        extra: labels of the caller.
        query_digest: of ``episode.query``, where the caller has it already.

    Raises:
        FewShotError: a parameter is not JSON-able, or an image cannot be read.
    """
    known = known or seen_by(method)
    return Cell(
        **method_identity(method),
        dataset=episode.dataset,
        target_class=episode.target_class,
        known=() if known is None else known.names,
        known_digest=None if known is None else known_digest(known),
        shots=episode.shots,
        full_shot=frozenset(episode.support) == frozenset(dataset.train(episode.target_class)),
        anomalous_shots=len(episode.anomalous_support),
        seed=episode.seed,
        manifest=episode.manifest,
        support_digest=digest_samples(dataset, episode.support + episode.anomalous_support),
        query_digest=query_digest or digest_samples(dataset, episode.query),
        eval_size=eval_size,
        extra=dict(extra or {}),
    )


def _prompts_digest(method: Method) -> dict[str, str]:
    """What a prompt file of the user says; shipped ones never change under their name."""
    prompts = getattr(method, "prompts", None)
    if not isinstance(prompts, str) or prompts in list_prompts():
        return {}
    return {"prompts_digest": load_prompts(prompts).digest}


def _as_json(method: Method) -> dict[str, Any]:
    """The parameters as they come back from a file: tuples as lists."""
    try:
        return json.loads(json.dumps(method.params(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise FewShotError(
            f"{method_name(method)} has a parameter that JSON cannot hold ({error}); "
            "keep numbers, strings, lists and mappings in the fields of a method."
        ) from error
