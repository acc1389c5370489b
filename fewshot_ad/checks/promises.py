"""What a check says with: promises that hold, refusals that come, predictions that agree."""

from collections.abc import Callable

import torch

from fewshot_ad.api import FewShotError, Prediction


class ContractError(AssertionError):
    """A method breaks a promise; the message says which one."""


def require(holds: bool, promise: str) -> None:
    """Raise ``ContractError`` where a promise does not hold."""
    if not holds:
        raise ContractError(promise)


def require_refusal(
    act: Callable[[], object], what: str, kind: type[FewShotError] = FewShotError
) -> str:
    """What the refusal of an act says; ``ContractError`` where it is not refused in that way."""
    try:
        act()
    except kind as error:
        require("\n" not in str(error), f"what is said of {what} has more than one line")
        return str(error)
    except Exception as error:
        raise ContractError(f"{what} ends in {type(error).__name__}: {error}") from error
    raise ContractError(f"{what} does not raise {kind.__name__}")


def unless_refused(act: Callable[[], Prediction], what: str) -> Prediction | None:
    """What comes of an act that may be refused, None if it was; no other error may come."""
    try:
        return act()
    except FewShotError:
        return None
    except Exception as error:
        raise ContractError(f"{what} ends in {type(error).__name__}: {error}") from error


def require_same(one: Prediction, other: Prediction, what: str) -> None:
    """Equal to the bit."""
    equal = torch.equal(one.image_score, other.image_score)
    require(equal and torch.equal(one.anomaly_map, other.anomaly_map), f"{what} differ")


def require_close(one: Prediction, other: Prediction, what: str) -> None:
    """Equal up to what another order of the same sums does to float32."""
    for name in ("image_score", "anomaly_map"):
        a, b = getattr(one, name), getattr(other, name)
        near = torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        require(near, f"{what}: {name} differs by up to {float((a - b).abs().max()):.3g}")


def require_finite(prediction: Prediction, what: str) -> None:
    """Neither NaN nor infinite."""
    for name in ("image_score", "anomaly_map"):
        finite = bool(getattr(prediction, name).isfinite().all())
        require(finite, f"{what}: {name} has NaN or infinite values")
