"""Worker of a test: gradients and statistics of a batch norm over two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg.collectives import rank
from vidseg.engine.distributed import process_group
from vidseg.layers import SyncBatchNorm


def start(norm: nn.Module) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5, generator=generator)
    x = 3 + torch.randn(4, 3, 5, 2, generator=generator)
    return norm.train(), x.requires_grad_()


def main(folder: str) -> None:
    with process_group(torch.device("cpu")):
        norm, x = start(SyncBatchNorm(3))
        # Shares of unequal size.
        own = (x[:3] if rank() == 0 else x[3:]).detach().requires_grad_()
        norm(own).pow(3).sum().backward()
        found = {"x": own.grad, **{n: p.grad for n, p in norm.named_parameters()}}
        torch.save(found | dict(norm.named_buffers()), Path(folder) / f"{rank()}.pth")
    # A thread that outlives its group may abort the process while the interpreter ends.
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in names), names


if __name__ == "__main__":
    main(sys.argv[1])
