"""Worker of a data-parallel test: one backward pass of a stage of DVIS-DAQ on its share of a batch.

Points are drawn as a function of their place in the mask alone, not of the number of masks, so
that they do not depend on how the batch is shared out.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

_rand = torch.rand


def steady_rand(*size: int, **_: Any) -> torch.Tensor:
    """Stands in for ``torch.rand``: the same numbers for every mask."""
    generator = torch.Generator().manual_seed(sum(size[1:]))
    return _rand(1, *size[1:], generator=generator).expand(*size).clone()


torch.rand = steady_rand  # before it becomes the default of an argument
torch.randint = lambda high, size: torch.zeros(size, dtype=torch.int64)

from tests.faults.chain import ROOT, WORDS  # noqa: E402
from vidseg.collectives import is_main, rank, world_size  # noqa: E402
from vidseg.config import load_config  # noqa: E402
from vidseg.data import build_train_loader  # noqa: E402
from vidseg.engine.distributed import process_group  # noqa: E402
from vidseg.modeling import build_model  # noqa: E402

Sample = dict[str, Any]


def batch_of(cfg: Any) -> list[Sample]:
    """Gives the samples of all ranks together."""
    samples: list[Sample] = next(iter(build_train_loader(cfg, rank=0, world_size=1)))
    counts = [len(sample["instances"].labels) for sample in samples]
    assert sum(counts[::2]) != sum(counts[1::2]), "other divisors on the ranks would not show"
    return samples


def config_of(stage: str, data: str) -> Any:
    words: list[Any] = []
    for key, value in zip(WORDS[::2], WORDS[1::2], strict=True):
        owner, _, name = str(key).rpartition(":")
        if owner in ("", stage):
            words += [name, value]
    words += ["DATASETS.TRAIN", f"('{data}',)", "SOLVER.IMS_PER_BATCH", 4]
    words += ["DATALOADER.NUM_WORKERS", 0]
    return load_config(ROOT / "projects" / "dvis_daq" / f"{stage}.yaml", words)


def main(stage: str, data: str, path: str) -> None:
    with process_group(torch.device("cpu")):
        cfg = config_of(stage, data)
        torch.manual_seed(0)
        model = build_model(cfg).train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()  # a share of the batch has statistics of its own
        samples = batch_of(cfg)[rank() :: world_size()]
        for sample in samples:
            sample["iteration"], sample["max_iter"] = 1, 100
        torch.manual_seed(0)
        parallel: torch.nn.Module = model
        if world_size() > 1:
            parallel = DistributedDataParallel(model, find_unused_parameters=True)
        sum(parallel(samples).values()).backward()
        if is_main():
            named = model.named_parameters()
            torch.save({name: p.grad for name, p in named if p.grad is not None}, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
