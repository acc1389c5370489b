import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from fewshot_ad.parts import subspace
from fewshot_ad.parts.subspace import fit_subspace


@pytest.fixture
def vectors() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    strengths = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    mixing = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    return (torch.randn(80, 6, generator=generator) * strengths) @ mixing + 4


@pytest.mark.parametrize("explained", [0.2, 0.7, 0.9, 0.99, 0.9999])
def test_components_are_those_of_scikit_learn(vectors: Tensor, explained: float) -> None:
    theirs = PCA(n_components=explained, svd_solver="full").fit(vectors.double().numpy())
    ours = fit_subspace(vectors, explained)
    assert ours.dims == theirs.n_components_
    cosines = np.abs((ours.basis.T.double().numpy() * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    back = theirs.inverse_transform(theirs.transform(vectors.double().numpy()))
    expected = vectors.double().numpy() - back
    np.testing.assert_allclose(ours.residual(vectors).numpy(), expected, atol=2e-5)


def test_all_of_the_variance_leaves_nothing(vectors: Tensor) -> None:
    found = fit_subspace(vectors, 1.0)
    assert found.dims == 6
    assert found.residual(vectors).abs().max() < 1e-4


def test_few_vectors_span_few_directions(vectors: Tensor) -> None:
    found = fit_subspace(vectors[:3], 1.0)
    assert found.dims == 2
    assert found.residual(vectors[:3]).abs().max() < 1e-4
    assert found.residual(vectors[3:]).abs().max() > 0.1


def test_constant_vectors_have_a_direction_and_no_residual() -> None:
    vectors = torch.full((5, 3), 2.0)
    found = fit_subspace(vectors, 0.9)
    assert found.dims == 1
    assert not found.residual(vectors).any()
    assert found.residual(vectors + 1).isfinite().all()


def test_chunks_change_nothing(vectors: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_subspace(vectors, 0.9)
    monkeypatch.setattr(subspace, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(fit_subspace(vectors, 0.9).basis.abs(), whole.basis.abs())
