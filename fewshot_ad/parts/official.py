"""Read state dicts of the authors' releases into our modules."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fewshot_ad.api import FewShotError


def load_official_state_dict(
    modules: Sequence[nn.Module], state: Mapping[str, Tensor], prefix: str
) -> None:
    """Share one state dict out over the modules of the levels.

    Args:
        modules: one per level, the finest first.
        state: the official weights of all levels, by name.
        prefix: what the names of a level begin with, ``{level}`` counting from 1:
            ``l{level}_proj.`` for ResAD's constraintors, ``vq{level}.`` for ResAD++'s codebooks.

    Raises:
        FewShotError: weights are missing, left over or of another shape.
    """
    starts = [prefix.format(level=number) for number in range(1, len(modules) + 1)]
    strangers = [name for name in state if not name.startswith(tuple(starts))]
    if strangers:
        raise FewShotError(
            f"Found weights {strangers[0]!r}, expected names that start with one of {starts}"
        )
    for module, start in zip(modules, starts, strict=True):
        own = {name.removeprefix(start): state[name] for name in state if name.startswith(start)}
        load_weights(module, own)


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict strictly; a mismatch is an error in one line."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise FewShotError(
            f"Weights do not fit {type(module).__name__}: {str(error).splitlines()[1].strip()}"
        ) from error
