"""Processes of a run: started here, and joined into one group.

The distributed engine is torch's own: ``torchrun`` sets the environment, and ``launch`` is the same
elastic launcher called from inside.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from vidseg.collectives import rank
from vidseg.errors import ConfigError, UserError

__all__ = [
    "PeerError",
    "is_launched",
    "launch",
    "local_rank",
    "process_group",
]


# Of a collective operation. Longer than any stage in which one process works for all, such as the
# scoring of a large data set; a process that hangs ends the run after it.
_TIMEOUT = datetime.timedelta(minutes=30)


class PeerError(UserError):
    """Reports that another process of the run is gone, or cannot be met."""

    exit_code = 1


def is_launched() -> bool:
    """Tells whether a launcher such as ``torchrun`` started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the process group that the launcher's environment describes, if there is one.

    Args:
        device: decides the backend: NCCL on CUDA, gloo elsewhere.

    Raises:
        PeerError: if the processes cannot meet, or one dies or hangs while others wait for it.
    """
    if not is_launched() or dist.is_initialized() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    # Optimizers import it later on, and it keeps the group that it finds then as a default.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group(backend, timeout=_TIMEOUT, **_rendezvous())
    except dist.DistError as error:
        place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise PeerError(
            f"the processes of the run cannot meet at {place} ({_first_line(error)}); choose "
            "another port, e.g. by torchrun --master-port"
        ) from error
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise PeerError(
            f"process {rank()} lost another process of the run, whose own message says why "
            f"({_first_line(error)}); the same command goes on from the last checkpoint"
        ) from error
    finally:
        # A group that anything still refers to keeps its threads, and one that runs while the
        # interpreter ends may abort the process. A model in a cycle of references is enough.
        gc.collect()
        dist.destroy_process_group()


def launch(script: str, argv: Sequence[str], num_processes: int) -> int:
    """Runs ``script`` in several processes on this machine through torch's elastic launcher.

    Args:
        script: path of the command to run again, now as a worker.
        argv: its arguments.
        num_processes: how many workers.

    Returns:
        The exit code of the first worker that failed, or 0.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _check_devices(num_processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-u", script, *argv)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval or signal.SIGTERM)
    return 0


def _rendezvous() -> dict[str, Any]:
    """Gives the store to meet in, apart from the one of workers that died before a restart.

    The launcher of a single machine keeps its store over restarts; workers that read the addresses
    which the dead ones left there would wait for them.
    """
    environment = os.environ
    kept = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not kept or environment.get("GROUP_WORLD_SIZE") != "1":
        return {}
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {
        "store": dist.PrefixStore(f"attempt_{attempt}", dist.TCPStore(address, port)),
        "rank": int(environment["RANK"]),
        "world_size": int(environment["WORLD_SIZE"]),
    }


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:160]


def _check_devices(num_processes: int) -> None:
    available = torch.cuda.device_count()
    if 0 < available < num_processes:
        raise ConfigError(f"--num-gpus {num_processes}: this machine has {available}")
