"""What a Prometheus server reads of the service: https://prometheus.io/docs/instrumenting/."""

from math import nan

from prometheus_client import (  # pyright: ignore[reportMissingImports]
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from fewshot_ad.inspection.calibrating import AT_ONCE
from fewshot_ad.inspection.drift import ALARM
from fewshot_ad.serving.judging import Judging

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "fewshot_ad_requests", "Requests to /predict, by status.", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "fewshot_ad_request_seconds",
            "From the first byte of a request to /predict to the last of its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.decisions = Counter(
            "fewshot_ad_decisions", "Photos judged, by decision.", ["decision"], registry=registry
        )
        self.batches = Histogram(
            "fewshot_ad_batch_photos",
            "Photos that were judged together.",
            buckets=range(1, AT_ONCE + 1),
            registry=registry,
        )
        self._waiting = Gauge(
            "fewshot_ad_queue_photos", "Photos that wait to be judged.", registry=registry
        )
        self._p_value = Gauge(
            "fewshot_ad_drift_p_value",
            "Rank test of recent scores against those of the normals; NaN while there are few.",
            registry=registry,
        )
        self._has_changed = Gauge(
            "fewshot_ad_drift", "1 if recent scores say that something changed.", registry=registry
        )

    def exposed(self, judging: Judging) -> bytes:
        """Everything, as Prometheus reads it."""
        p_value = judging.drift_p_value()
        self._waiting.set(len(judging))
        self._p_value.set(nan if p_value is None else p_value)
        self._has_changed.set(p_value is not None and p_value < ALARM)
        return generate_latest(self.registry)
