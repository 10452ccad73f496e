"""Whether somebody looks at the operations that are run, which then have to be torch's own."""

from __future__ import annotations

import torch

__all__ = ["is_recorded"]


def is_recorded() -> bool:
    """Tells of ``torch.compile``, export, tracing, ``torch.func`` and modes that see every call.

    Such a mode is ``FlopCounterMode``, which counts nothing for kernels that it does not know, or
    ``FakeTensorMode``, whose tensors have no numbers.
    """
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )
