"""Batches from worker processes that may die or hang, without taking this process with them."""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader

from vidseg.errors import DataError, ResourceError

from .mappers import Sample
from .sources import Failure, Source

__all__ = ["SampleLoader", "WorkerError"]

_logger = logging.getLogger(__name__)

# After which a loader process that gives nothing counts as hung, e.g. on a network disk.
_PATIENCE_SECONDS = 1200.0
_LOOK_SECONDS = 5  # between two looks at loader processes that give nothing
_SMALL_BYTES = 1 << 17  # of a tensor that is copied sooner than it gets a file of its own


class WorkerError(ResourceError):
    """Reports a loader process that died or hangs; data and config may be fine."""


class SampleLoader:
    """Gives batches, made in worker processes or in this one.

    Args:
        source: makes one sample of one item.
        batches: called for every iteration over the loader; gives lists of items.
        num_workers: loader processes; 0 works in this process.
        num_batches: length of the loader, -1 if it is endless.
        prefetch: batches that each worker prepares in advance.
        start_method: of the workers; the platform's default if left out.
        on_failure: is told the item and the error of data that cannot be read, which are then left
            out; without it the error is raised.
    """

    def __init__(
        self,
        source: Source,
        batches: Callable[[], Iterable[list[Any]]],
        *,
        num_workers: int = 0,
        num_batches: int = -1,
        prefetch: int = 2,
        start_method: str | None = None,
        on_failure: Callable[[Any, DataError], None] | None = None,
    ) -> None:
        self.source = source
        self.batches = batches
        self.num_workers = num_workers
        self.num_batches = num_batches
        self.prefetch = prefetch
        self.start_method = start_method
        self.on_failure = on_failure

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: if the loader is endless.
        """
        if self.num_batches < 0:
            raise TypeError("this loader is endless")
        return self.num_batches

    def __iter__(self) -> Iterator[list[Sample]]:
        """Gives the batches from the start.

        Raises:
            DataError: if a sample cannot be made (names the file).
            WorkerError: if a worker died or hangs.
        """
        parallel = self.num_workers > 0
        loader: DataLoader[Any] = DataLoader(
            self.source,
            batch_sampler=_Batches(self.batches),
            num_workers=self.num_workers,
            collate_fn=_pack if parallel else list,
            worker_init_fn=_init_worker,
            prefetch_factor=self.prefetch if parallel else None,
            multiprocessing_context=self.start_method if parallel else None,
            timeout=_LOOK_SECONDS if parallel else 0,
        )
        loaded = _start(loader)
        try:
            for items in self.batches():
                outcomes = zip(items, self._next(loaded, items), strict=True)
                batch = [sample for item, sample in outcomes if not self._failed(item, sample)]
                if batch:
                    yield batch
        finally:
            # Ends the workers now; left to a traceback or the garbage collector it takes seconds.
            del loaded

    def _failed(self, item: Any, outcome: Sample | Failure) -> bool:
        if not isinstance(outcome, Failure):
            return False
        _logger.debug("%s", outcome.trace)
        if self.on_failure is None or not isinstance(outcome.error, DataError):
            raise outcome.error
        self.on_failure(item, outcome.error)
        return True

    def _next(self, loaded: Iterator[Any], items: list[Any]) -> list[Any]:
        started = time.monotonic()
        while True:
            try:
                batch: list[Any] | torch.Tensor = next(loaded)
                return (
                    pickle.loads(batch.numpy().data) if isinstance(batch, torch.Tensor) else batch
                )
            except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
                fate = "died"
                if "DataLoader timed out" in str(error):
                    if time.monotonic() - started < _PATIENCE_SECONDS:
                        continue
                    fate = "hangs"
                    # Asking it to end, as torch does, has no effect on a process that hangs.
                    for worker in getattr(loaded, "_workers", ()):
                        worker.kill()
                elif isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                # The others come from fetching a batch that a worker made before its death.
                raise WorkerError(self._death_message(items, fate, str(error))) from None

    def _death_message(self, items: list[Any], fate: str, reason: str) -> str:
        places = "; ".join(sorted({self.source.describe(item) for item in items}))
        return (
            f"a data loader process {fate}: {places} was due ({reason.partition(chr(10))[0]}); "
            f"if memory ran out, lower DATALOADER.NUM_WORKERS (now {self.num_workers})"
        )


class _Batches:
    """What a DataLoader takes as batch sampler."""

    def __init__(self, batches: Callable[[], Iterable[list[Any]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches())


class _BatchPickler(ForkingPickler):
    """Puts small tensors into the pickle itself.

    Torch gives each tensor a file of shared memory, which a socket hands over: for samples of a
    dozen small tensors that takes longer than making them, and more files than a process may open.
    """

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not torch.Tensor or value.nbytes > _SMALL_BYTES:
            return NotImplemented
        try:
            array = value.contiguous().numpy()
        except (RuntimeError, TypeError):  # NumPy lacks its type, or it is no plain CPU tensor
            return NotImplemented
        return torch.from_numpy, (array,)


def _pack(samples: list[Any]) -> torch.Tensor:
    """Pickles a batch for the main process, as bytes that take one file of shared memory.

    Through the pipe goes but the name of that file. A pipe that is full blocks a worker for good,
    the end of its process included, once a killed main process no longer reads.
    """
    buffer = io.BytesIO()
    _BatchPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(samples)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Starts the workers of a loader.

    torch lets the death of a worker raise an error wherever this process happens to be, be it in
    the middle of an optimiser step. Waiting for the batch that does not come shows it as well.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    loaded = iter(loader)
    signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)
    return loaded


def _init_worker(_: int) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    # A signal to the whole process group must not end the workers: the main process decides what
    # it means, and may want to finish its step. It still ends them one by one by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _end_with(parent: int) -> None:
    """Ends this worker once its parent was killed, whatever it waits for then."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
