"""Whether somebody looks at the operations that are run, which then have to be torch's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["is_exported", "is_recorded", "repeat_while", "without_autocast"]


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


def is_exported() -> bool:
    """Tells of ``torch.export``, whose graph has to hold all that depends on the data."""
    # Before torch 2.7 nothing told it from torch.compile.
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Keeps mixed precision away from sums that would leave its range.

    An exported graph has no mixed precision; with loops in it, torch 2.14 cannot even hold the
    remark that there is none.
    """
    return nullcontext() if is_exported() else torch.autocast(device.type, enabled=False)


def repeat_while(
    condition: Callable[..., Tensor],
    step: Callable[..., tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """Repeats a step as long as a condition holds, in a graph that is exported, too.

    Args:
        condition: of the state, bool ``()``.
        step: gives the next state, new tensors of the same shapes and types.
        state: before the first step.

    Returns:
        The state for which the condition does not hold.
    """
    if is_exported():
        from torch._higher_order_ops.while_loop import while_loop

        return tuple(while_loop(condition, step, state))
    while condition(*state):
        state = step(*state)
    return state
