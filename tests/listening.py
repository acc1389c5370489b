"""Hears what a method trains: the loss of every step, or what it would be before the first."""

from types import ModuleType
from typing import NamedTuple

import pytest
from torch import nn

from fewshot_ad.parts.support_training import Loss, train_on_support


def hear_losses(monkeypatch: pytest.MonkeyPatch, method: ModuleType) -> list[float]:
    """The losses of all steps that the method of a module will do, in order, as they come."""
    losses: list[float] = []

    def listen(network, loss, *rest) -> None:
        def noted(rows, generator):
            losses.append((found := loss(rows, generator)).item())
            return found

        train_on_support(network, noted, *rest)

    monkeypatch.setattr(method, "train_on_support", listen)
    return losses


class Training(NamedTuple):
    """What would be trained: a network, its loss of some rows, and how many rows there are."""

    network: nn.Module
    loss: Loss
    count: int


def catch_trainings(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Training]:
    """The trainings that the methods of a module ask for, none of which is done."""
    caught: list[Training] = []

    def catch(network: nn.Module, loss: Loss, count: int, *_: object) -> None:
        caught.append(Training(network.train().requires_grad_(requires_grad=False), loss, count))

    monkeypatch.setattr(module, "train_on_support", catch)
    return caught
