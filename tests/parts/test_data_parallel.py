"""Two real processes beside one: gradients, losses and weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import shared_batches
import torch
from shared_batches import METHODS, ROWS, STEPS, Network, drawn, gradients, known, learned
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.checkpoints import trained
from fewshot_ad.methods import load_method
from fewshot_ad.parts import data_parallel, process_teams
from fewshot_ad.parts.process_teams import run_together

FREE = ("conv.bias", "running_mean")  # the norm takes their gradient out, up to the last bits
WHY = "processes of a team need the extra [distributed]"


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the first and the second of two processes found."""
    pytest.importorskip("lightning_fabric", reason=WHY)
    folder = tmp_path_factory.mktemp("team")
    run_together(partial(shared_batches.everything, folder=folder), processes=2, device="cpu")
    return [torch.load(folder / f"{name}.pt", weights_only=True) for name in ("first", "second")]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_averaged_gradients_are_those_of_one_process(teams, number: int) -> None:
    network = Network()
    alone = torch.autograd.grad(
        network.loss(drawn(ROWS[number]), lambda apply, rows: apply(rows)),
        [*network.parameters()],
    )
    for found in teams:
        for ours, theirs in zip(found["gradients"][number], alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_mean_over_shares_of_their_own_losses_would_be_another_gradient() -> None:
    network, images = Network(), drawn(4)

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, network.head.weight)[0]

    def plain(apply: Any, rows: Tensor) -> Any:
        return apply(rows)

    halves = [gradient(network.loss(half, plain)) for half in images.split(2)]
    whole = gradient(network.loss(images, plain))
    assert not torch.allclose(torch.stack(halves).mean(dim=0), whole, rtol=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_weights_are_those_of_one_process(teams, name: str) -> None:
    alone, (first, second) = learned(name), teams
    assert len(alone["losses"]) >= 2 * STEPS  # of both levels
    assert first[name]["losses"] == second[name]["losses"]
    assert first[name]["losses"] == pytest.approx(alone["losses"], rel=1e-4, abs=1e-5)
    assert len({round(loss, 3) for loss in alone["losses"]}) > STEPS
    for key, weight in alone["weights"].items():
        assert torch.equal(first[name]["weights"][key], second[name]["weights"][key])
        if not key.endswith(FREE):
            torch.testing.assert_close(first[name]["weights"][key], weight, rtol=1e-3, atol=1e-4)
    assert (alone["processes"], first[name]["processes"]) == (1, 2)


def test_every_class_is_extracted_once(teams) -> None:
    shares = [found["resad"]["extracted"] for found in teams]
    assert all(shares)
    assert sorted(name for share in shares for name in share) == sorted(known().names)


def test_a_broken_run_goes_on_in_all_processes(teams) -> None:
    for found in teams:
        unbroken, resumed = found["resad"], found["broken"]
        assert resumed["losses"] == unbroken["losses"][len(unbroken["losses"]) // 2 :]
        assert all(
            torch.equal(resumed["weights"][key], weight)
            for key, weight in unbroken["weights"].items()
        )


def test_out_of_a_team_nothing_changes() -> None:
    layer, rows = nn.Linear(2, 3), torch.ones(4, 2)
    with data_parallel.sharing():
        assert torch.equal(data_parallel.in_shares(layer, rows), layer(rows))
    assert data_parallel.n_processes() == 1
    assert data_parallel.is_first()
    assert list(data_parallel.dealt_out(["a", "b"])) == ["a", "b"]
    assert all(torch.equal(*pair) for pair in zip(gradients(5), gradients(5), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (shared_batches.complaining, "^the second process has something to say$"),
        (shared_batches.dying, r"^process 1 of the training was killed by SIGKILL, perhaps"),
    ],
)
def test_one_process_that_fails_ends_all_with_one_line(work, words: str, capfd) -> None:
    pytest.importorskip("lightning_fabric", reason=WHY)
    with pytest.raises(FewShotError, match=words):
        run_together(work, processes=2, device="cpu")
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_the_command_trains_with_two_processes(cli, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("lightning_fabric", reason=WHY)
    monkeypatch.setenv("FEWSHOT_AD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "resad.safetensors"
    result = cli(
        *("train", "--known", "synthetic:gear+grid", "--known-limit", 2, "--out", path),
        *("--steps", 3, "--processes", 2, "--backbone", "random:tiny"),
        *("--set", "preprocess.size=64"),
    )
    assert result.exit_code == 0, result.stderr
    assert b'"processes": 2' in path.read_bytes().replace(rb"\"", b'"')
    assert [one.suffix for one in sorted((tmp_path / "cache").rglob("*.*"))] == [
        ".lock",
        ".safetensors",
    ]


def test_without_fabric_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_teams, "find_spec", lambda _: None)
    with pytest.raises(FewShotError, match=r"pip install 'fewshot-ad\[distributed\]'"):
        run_together(shared_batches.dying, processes=2, device="cpu")


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:0", "2 processes cannot share the device cuda:0"), ("cuda", "and 1 are here")],
)
def test_every_process_needs_a_device(device, words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_teams, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(FewShotError, match=words):
        run_together(shared_batches.dying, processes=2, device=device)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("strangers:ScaledEdges", "ScaledEdges does not share its batches among processes"),
        ("resad", "16 processes cannot share batches of 8 images; give at most 8"),
    ],
)
def test_what_cannot_be_shared_is_refused(method: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        trained(load_method(method), known(), cache_dir=tmp_path, processes=16)
    assert not list(tmp_path.iterdir())
