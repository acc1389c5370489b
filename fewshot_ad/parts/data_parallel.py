"""What processes do that share every batch of one training, to the numbers of one process.

Every process draws the same batch. Where a network sees each row alone, a process computes its
share of the rows (``in_shares``); what comes out is gathered, with its gradients, before the loss.
So every mean, quantile and count is that of the whole batch, however normals and anomalies are
dealt out, and no share has a weight. In the backward pass of the gathering the equal losses of all
processes add up, and their mean is taken again over the gradients of weights: this is the gradient
of one process for weights before the gathering and behind it alike. Sums are taken in another
order, so the last bits differ.

A process is in one team or in none, as in ``torch.distributed``, so that nobody hands it around. In
none, every function here leaves things as they are. ``parts.process_teams`` starts a team.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

T = TypeVar("T")


@dataclass
class _Membership:
    """Lightning's ``Fabric`` of this process, None out of a team."""

    fabric: Any = None
    is_sharing: bool = False


_own = _Membership()


@contextmanager
def joined(fabric: Any) -> Generator[None]:
    """Be in a team meanwhile."""
    _own.fabric = fabric
    try:
        yield
    finally:
        _own.fabric = None


@contextmanager
def sharing() -> Generator[None]:
    """Share rows and average gradients meanwhile; every process of the team must do the same."""
    _own.is_sharing = _own.fabric is not None
    try:
        yield
    finally:
        _own.is_sharing = False


def n_processes() -> int:
    """Of the team; 1 out of one."""
    return 1 if _own.fabric is None else int(_own.fabric.world_size)


def is_first() -> bool:
    """Whether it is for this process to show progress and to write files."""
    return _own.fabric is None or _own.fabric.global_rank == 0


def wait_for_all() -> None:
    """Go on when every process of the team has come here."""
    if _own.fabric is not None:
        _own.fabric.barrier()


def in_shares(network: Callable[..., Any], *inputs: Shaped[Tensor, "..."] | None) -> Any:
    """What a network makes of all rows, each process computing its share of them.

    Args:
        network: sees each row alone; gives a tensor, or several, with as many rows.
        inputs: equal in all processes and of equal length, None where there is none.
    """
    if not _own.is_sharing:
        return network(*inputs)
    (count, *_) = (len(each) for each in inputs if each is not None)
    bounds = [count * rank // n_processes() for rank in range(n_processes() + 1)]
    first, end = bounds[_own.fabric.global_rank :][:2]
    outputs = network(*(None if each is None else each[first:end] for each in inputs))
    lengths = [end - first for first, end in pairwise(bounds)]
    if isinstance(outputs, Tensor):
        return _gathered(outputs, lengths)
    return tuple(_gathered(each, lengths) for each in outputs)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of the gradients of all."""
    if not _own.is_sharing:
        return
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    mean = _own.fabric.all_reduce(flat, reduce_op="mean")
    parts = mean.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def as_in_the_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the first process, whose last bits may be others."""
    if _own.fabric is not None:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


def dealt_out(names: Sequence[str]) -> Sequence[str]:
    """The names that are for this process to work on; ``told_to_all`` hands on what it finds."""
    return names if _own.fabric is None else names[_own.fabric.global_rank :: n_processes()]


def told_to_all(names: Sequence[str], found: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """What the processes found under the names that were dealt out to them.

    Args:
        names: all of them, in the same order everywhere.
        found: by this process, under ``dealt_out(names)``.
    """
    if _own.fabric is None:
        return found
    return {
        name: _told(found.get(name), number % n_processes()) for number, name in enumerate(names)
    }


def _gathered(share: Tensor, lengths: list[int]) -> Tensor:
    """The shares of all, one after the other; filled up for the way, since it takes equal ones."""
    missing = max(lengths) - len(share)
    filled = torch.cat([share, share.new_zeros(missing, *share.shape[1:])])
    parts = _own.fabric.all_gather(filled, sync_grads=True)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def _told(tensors: list[Tensor] | None, teller: int) -> list[Tensor]:
    """Tensors that one process has, in all; on the CPU where they were there."""
    fabric = _own.fabric
    forms = [(one.shape, one.dtype, one.is_cpu) for one in tensors or ()]
    told: list[Tensor] = []
    for number, (shape, dtype, is_cpu) in enumerate(fabric.broadcast(forms, src=teller)):
        own = torch.empty(shape, dtype=dtype) if tensors is None else tensors[number]
        sent = own.to(fabric.device).contiguous()
        torch.distributed.broadcast(sent, teller)
        told.append(sent.cpu() if is_cpu else sent)
    return told
