"""Runs inside the environment of the peers: anomalib's models on tensors, without its engine.

    FOLDER/bin/python benchmarks/peer_worker.py JOB

JOB is a folder with ``job.json``, ``query.npy``, ``support-*.npy`` and ``weights.safetensors``;
scores and times are written beside them. Nothing of Lightning, no data module and no second epoch
is on the clock, and there is one import for all episodes: less than a user of anomalib pays.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from anomalib.models.image.cflow.lightning_model import Cflow
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from safetensors.torch import load_file

BATCH = 8


def fill(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """The same weights on both sides."""
    absent = network.load_state_dict(weights, strict=False).missing_keys
    absent = [name for name in absent if not name.endswith("num_batches_tracked")]
    if absent:
        raise SystemExit(f"the networks differ: {absent[:3]}")


def patchcore(job: dict, weights: dict, support: torch.Tensor) -> torch.nn.Module:
    """A bank with every patch, as ours has it at few shots."""
    model = PatchcoreModel(job["layers"], job["backbone"], pre_trained=False, num_neighbors=1)
    fill(model.feature_extractor.feature_extractor, weights)
    model.train()
    model.feature_extractor.eval()
    for image in support:
        model(image[None])
    model.memory_bank = torch.vstack(model.embedding_store)
    return model.eval()


def padim(job: dict, weights: dict, support: torch.Tensor) -> torch.nn.Module:
    """A Gaussian per position."""
    model = PadimModel(job["backbone"], job["layers"], pre_trained=False, n_features=100)
    fill(model.feature_extractor.feature_extractor, weights)
    model.train()
    model.feature_extractor.eval()
    for image in support:
        model(image[None])
    model.fit()
    return model.eval()


def cflow(job: dict, weights: dict, support: torch.Tensor) -> torch.nn.Module:
    """Its training step on the support, once over all positions."""
    off = dict.fromkeys(("pre_processor", "post_processor", "evaluator", "visualizer"), False)
    model = Cflow(job["backbone"], job["layers"], False, coupling_blocks=job["flow_blocks"], **off)
    fill(model.model.encoder.feature_extractor, weights)
    optimizer = model.configure_optimizers()
    model.optimizers = lambda: optimizer
    model.manual_backward = lambda loss: loss.backward()
    model.log = lambda *_, **__: None
    model.training_step(SimpleNamespace(image=support))
    return model.model.eval()


METHODS: dict[str, Callable[[dict, dict, torch.Tensor], torch.nn.Module]] = {
    "patchcore": patchcore,
    "padim": padim,
    "cflow": cflow,
}


@torch.no_grad()
def predict(model: torch.nn.Module, query: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Image scores, and maps."""
    found = [model(batch) for batch in query.split(BATCH)]
    scores = torch.cat([each.pred_score.flatten() for each in found])
    maps = torch.cat([each.anomaly_map.flatten(0, -3) for each in found])
    return scores.numpy(), maps.float().numpy()


def main() -> None:
    """Run the job."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    query = torch.from_numpy(np.load(folder / "query.npy"))
    weights = load_file(folder / "weights.safetensors")
    times = []
    for number in range(job["episodes"]):
        support = torch.from_numpy(np.load(folder / f"support-{number}.npy"))
        torch.manual_seed(number)
        start = clock()
        model = METHODS[job["method"]](job, weights, support)
        fitted = clock()
        scores, maps = predict(model, query)
        times.append([fitted - start, clock() - fitted])
        np.save(folder / f"scores-{number}.npy", scores)
        np.save(folder / f"maps-{number}.npy", maps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "times.json").write_text(json.dumps({"times": times, "peak_memory_mb": peak}))


if __name__ == "__main__":
    main()
