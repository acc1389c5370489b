"""An image alone has the bits that it has in a batch, whatever else is in the batch.

The contract asks the same of strangers' methods, up to what another order of sums does.
"""

from typing import Any

import pytest
import torch

from fewshot_ad.checks import shrunk
from fewshot_ad.checks.trial import maker, query, support
from fewshot_ad.methods import list_methods, load_method

WAYS: dict[str, list[dict[str, Any]]] = {
    "anomalydino": [{"mask": "always"}],
    "dfr": [{"solver": "autoencoder"}],
    "patchcore": [{"n_neighbors": 4, "coreset_above": 1}],
    "pni": [{"network_shots": 2, "hidden": 16, "layers": 1, "channels": 8, "window": 3}],
    "residual_distance": [{"neighbourhood": 3, "channels": 8}],
    "spade": [{"scored_by": "retrieval"}],
}
"""What changes how images are judged, besides the defaults."""

CASES = [
    (name, changes)
    for name in list_methods()
    if load_method(name).track != "batched"
    for changes in [{}, *WAYS.get(name, [])]
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_an_image_alone_scores_as_beside_others(
    name: str, changes: dict[str, Any], tmp_path
) -> None:
    method = maker(shrunk(load_method(name).variant(**changes)), tmp_path)()
    image, others = query(method)[4:5], 50 * query(method)[6:8]
    method.fit(support(method, 2))
    alone, beside = method.predict(image), method.predict(torch.cat([others, image]))
    assert torch.equal(alone.anomaly_map[0], beside.anomaly_map[2])
    assert torch.equal(alone.image_score[0], beside.image_score[2])
