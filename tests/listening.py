"""Hears the loss of every step, whatever a method trains."""

from types import ModuleType

import pytest

from fewshot_ad.parts.support_training import train_on_support


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
