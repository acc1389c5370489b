"""Starts the processes that share every batch of one training, and ends them all when one fails.

Lightning Fabric starts them and carries what they tell each other, by gloo between CPUs and by NCCL
between GPUs: https://lightning.ai/docs/fabric. It, and not accelerate: it starts a function in
fresh processes from a program that runs already, where accelerate has a command of its own or
forks, which CUDA does not survive; and its ``all_gather`` lets gradients through, where
accelerate's does not. It is an optional library, loaded when a team is started.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import active_children, get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import chosen_device
from fewshot_ad.parts.data_parallel import joined

# A new process imports this file after Fabric, which then wants to be heard, and before it speaks.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
PATIENCE = timedelta(days=7)  # a process that fails ends the others; slow ones are waited for
GRACE = 2.0  # seconds; in which the end of a process is seen before the complaints of the others


def run_together(work: Callable[[str], None], *, processes: int, device: str) -> None:
    """Call ``work(device)`` in so many new processes of this machine.

    Each has a device of its own, or its share of the threads. They find each other by
    ``parts.data_parallel``. Warnings of the first are repeated here.

    Args:
        work: a function of a module, or a ``partial`` of one.
        processes: how many.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        FewShotError: Fabric is not installed, there are not so many devices, one process was
            killed, or one raised this error.
    """
    fabric = _fabric(processes, device)
    threads = max(1, torch.get_num_threads() // processes)
    complaints = get_context("spawn").SimpleQueue()
    with _none_left_behind():
        try:
            said = fabric.launch(_member, complaints, threads, work)
        except (ProcessRaisedException, ProcessExitedException) as error:
            if not complaints.empty():
                raise FewShotError(complaints.get()) from None
            if isinstance(error, ProcessExitedException):
                raise FewShotError(_death(error)) from error
            raise
    for message in said:
        warnings.warn(message, stacklevel=2)


def _fabric(processes: int, device: str) -> Any:
    if find_spec("lightning_fabric") is None:
        raise FewShotError(
            f"{processes} processes need Lightning Fabric: pip install 'fewshot-ad[distributed]'"
        )
    kind = chosen_device(device)
    if kind not in ("cpu", "cuda"):
        raise FewShotError(
            f"{processes} processes cannot share the device {kind}; give --device auto, cpu or "
            "cuda, or one process"
        )
    if kind == "cuda" and torch.cuda.device_count() < processes:
        raise FewShotError(
            f"{processes} processes need a GPU each, and {torch.cuda.device_count()} are here; "
            "give fewer processes, or --device cpu"
        )
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # we tell of deaths
    strategy = import_module("lightning_fabric.strategies").DDPStrategy(
        start_method="spawn",
        timeout=PATIENCE,
        # Started here, within jobs of Slurm or torchrun too, which Fabric would take for its own.
        cluster_environment=import_module(
            "lightning_fabric.plugins.environments"
        ).LightningEnvironment(),
    )
    fabric = import_module("lightning_fabric").Fabric
    return fabric(accelerator=kind, devices=processes, strategy=strategy)


def _member(
    fabric: Any, complaints: "SimpleQueue[str]", threads: int, work: Callable[[str], None]
) -> list[str]:
    """In each process: the work; gives the warnings that it raised."""
    torch.set_num_threads(threads)
    with joined(fabric), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            work(str(fabric.device))
        except FewShotError as error:
            complaints.put(str(error))
            raise
        except RuntimeError:  # what talking to a dead process raises: its death is to be told of
            time.sleep(GRACE)
            raise
    return [str(each.message) for each in caught if each.category is UserWarning]


def _death(error: ProcessExitedException) -> str:
    code = f"ended with exit code {error.exit_code}"
    how = f"was killed by {error.signal_name}" if error.signal_name else code
    hint = ", perhaps because memory ran out" if error.signal_name == "SIGKILL" else ""
    return (
        f"process {error.error_index} of the training {how}{hint}; the same command goes on where "
        "it was last saved"
    )


@contextmanager
def _none_left_behind() -> Generator[None]:
    """End, when this one is interrupted, what it started; leave the environment as it was."""
    before, children = os.environ.copy(), active_children()
    try:
        yield
    finally:
        for child in active_children():
            if child not in children:
                child.terminate()
                child.join()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]  # Fabric's port, which the next team must not take for given
