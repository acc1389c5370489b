"""Rows for reports, made by hand."""

from dataclasses import replace

import numpy as np

from fewshot_ad.evaluation.results import ResultRow

ROW = ResultRow(
    dataset="synthetic", target_class="screw", method="patchcore", params={"k": 1}, recipe=1,
    track="training_free", backbone="tiny", weights_digest="0", known=(), known_digest=None,
    shots=4, full_shot=False, anomalous_shots=0, seed=0, manifest="drawn", support_digest="s",
    query_digest="q", eval_size=256, i_auroc=0.9, i_ap=0.8, i_f1_max=0.7, p_auroc=0.6, p_ap=0.5,
    p_f1_max=0.4, aupro=0.3, n_normal=24, n_anomalous=24, n_missing_masks=0, fit_seconds=0.5,
    predict_seconds_per_image=0.01, metric_seconds=0.25, peak_memory_mb=1.0,
    peak_gpu_memory_mb=None, device="cpu", package_version="0", git_commit=None,
    time="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def some_rows(
    methods=3, classes=7, shots=(1, 4), seeds=2, track="training_free"
) -> list[ResultRow]:
    """A whole grid; later methods are better, more shots are better, classes differ."""
    draw = np.random.Generator(np.random.PCG64(0))
    return [
        replace(
            ROW,
            method=f"m{m}",
            track=track,
            target_class=f"class{c}",
            shots=n,
            seed=seed,
            i_auroc=float(0.6 + 0.02 * m + 0.01 * n + 0.03 * c + 0.01 * draw.random()),
        )
        for m in range(methods)
        for c in range(classes)
        for n in shots
        for seed in range(seeds)
    ]
