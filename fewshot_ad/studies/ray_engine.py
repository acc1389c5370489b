"""Jobs as tasks of a Ray cluster: https://docs.ray.io.

Every job is one task that declares its processors and its memory, and streams what it finishes to
the driver, which alone writes. Ray's own retries are off: who conducts the study runs what is left
of a lost task again, as for processes of one machine.

Nodes read images, weights and the cache of meta-trainings by the same paths as the driver, from a
shared disk or from copies. Without a shared FEWSHOT_AD_CACHE every node meta-trains for itself, to
the same bits.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fewshot_ad.api import FewShotError
from fewshot_ad.studies.cells import Answer, Ended, Job
from fewshot_ad.studies.engines import Queue
from fewshot_ad.studies.local_engine import LIBRARIES, THREADS, recorded

HANDED_ON = ("FEWSHOT_AD_CACHE", "FEWSHOT_AD_FEATURE_CACHE", "FEWSHOT_AD_WEIGHTS")


class RayCluster:
    """A cluster that is started here for one run, or one that runs already."""

    def __init__(self, address: str, processors: int, *, gpus: float | None = None) -> None:
        """Say which.

        Args:
            address: ``local`` for a cluster on this machine that ends with the run, ``auto`` for
                the one this machine belongs to, or ``HOST:PORT``.
            processors: of a local cluster; every task takes one.
            gpus: that a task takes; by default one where the cluster has any.

        Raises:
            FewShotError: Ray is not installed.
        """
        if find_spec("ray") is None:
            raise FewShotError("--engine ray needs Ray: pip install 'fewshot-ad[ray]'")
        self._address = address
        self._processors = processors
        self._gpus = gpus

    def run(self, queue: Queue) -> Generator[tuple[Job, Answer]]:
        """See ``Engine.run``."""
        ray = _ray()

        with redirect_stdout(sys.stderr), self._connected():  # Ray tells of lost workers on stdout
            launch = self._launcher()
            running: dict[Any, Job] = {}
            while True:
                while (job := queue.take()) is not None:
                    running[launch(job)] = job
                if not running:
                    return
                (stream, *_), _ = ray.wait(list(running), num_returns=1)
                answer = _next(stream)
                job = running[stream]
                if isinstance(answer, Ended):
                    del running[stream]
                yield job, answer

    def _launcher(self) -> Callable[[Job], Any]:
        """What starts a task; it asks for no more memory than the largest node has."""
        ray = _ray()

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = int(max(node.get("memory", 0) for node in nodes))
        has_gpus = any(node.get("GPU", 0) for node in nodes)
        gpus = self._gpus if self._gpus is not None else float(has_gpus)
        task = ray.remote(recorded)

        def launch(job: Job) -> Any:
            wanted = task.options(
                num_cpus=1,
                num_gpus=gpus,
                memory=min(job.memory + LIBRARIES, largest),
                max_retries=0,
                num_returns="streaming",
                name=str(job),
            )
            return wanted.remote(replace(job, threads=1))

        return launch

    @contextmanager
    def _connected(self) -> Generator[None]:
        ray = _ray()

        is_local = self._address == "local"
        if not is_local and (address := self._found()):
            _check_reachable(address)
        settings: dict[str, Any] = {"address": self._address}
        if is_local:
            settings |= {"num_cpus": self._processors, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            ray.init(
                **settings,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": _environment(is_local)},
            )
        except Exception as error:  # Ray has no class of its own for a start that failed
            said = " ".join(str(error).split())
            if is_local:
                raise FewShotError(
                    f"Ray did not start here ({said}); try again when this machine is less busy, "
                    "or leave out --engine ray"
                ) from error
            raise _no_cluster(self._address, said) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _found(self) -> str | None:
        """Where the cluster is said to be; None where this release of Ray does not tell it ahead.

        Raises:
            FewShotError: ``auto``, and this machine belongs to no cluster.
        """
        if self._address != "auto":
            return self._address
        services = import_module("ray._private.services")
        tell = getattr(services, "get_ray_address_from_environment", lambda *_: None)
        try:
            return tell("auto", None)
        except ConnectionError as error:
            raise _no_cluster("auto", "none was started here") from error


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for many minutes.

    Raises:
        FewShotError: it is no HOST:PORT, or nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise FewShotError(f"--address '{address}' is neither local, auto nor HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> FewShotError:
    return FewShotError(
        f"no Ray cluster at {address} ({reason}); start one with 'ray start --head', or give "
        "--address local"
    )


def _ray() -> Any:
    """An optional library, loaded when it is needed."""
    return import_module("ray")


def _environment(is_local: bool) -> dict[str, str]:
    """What workers must find in their environment; bits hang on the number of threads."""
    handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} if is_local else {}
    return dict.fromkeys(THREADS, "1") | handed_on | path


def _next(stream: Any) -> Answer:
    """The next answer of a task; ``Ended`` with the reason where its worker is gone."""
    ray = _ray()

    try:
        answer: Any = ray.get(next(stream))
        return answer
    except StopIteration:
        return Ended("its stream ended early")
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return Ended(f"its worker was lost ({type(error).__name__}: {first})")
