"""Linear layers and convolutions on a CPU, through the kernels of oneDNN.

torch computes float32 products of matrices with MKL, which on many x86 processors leaves half of
the arithmetic units idle, and most 1x1 convolutions likewise; oneDNN, which torch carries along,
uses them. Its kernels also give a row, or a frame, the same bits in whatever batch it stands, which
MKL's do not.

Wherever they do not apply (other devices and dtypes, autocast, tracing and the like; gradients of
convolutions) the functions here are those of ``torch.nn.functional``. With
``torch.backends.mkldnn.flags(enabled=False)``, or in a torch without these kernels, they always
are.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.host_memory import release_freed_memory

from .recording import is_recorded

__all__ = [
    "Conv2d",
    "Linear",
    "available",
    "conv2d",
    "is_used",
    "keeps_rows",
    "linear",
    "linear_at_once",
]

# A call costs about 10 microseconds more than torch's, and a new shape 400; smaller layers lose.
_LEAST_WEIGHTS = 2**14
_LEAST_PRODUCTS = 2**23
_STEP, _PART, _LARGE_PART, _MANY_ROWS = 32, 128, 512, 4096
_LARGE_KERNEL = 2**21
_X86 = platform.machine().lower() in ("x86_64", "amd64")


class Linear(nn.Linear):
    """A linear layer, ``(..., in_features)`` to ``(..., out_features)``."""

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Applies the layer, and a ReLU if wanted; see the class for shapes."""
        return linear(x, self.weight, self.bias, relu=relu)


class Conv2d(nn.Conv2d):
    """A convolution with zero padding, ``(B, I, H, W)`` to ``(B, O, H', W')``."""

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer; see the class for shapes."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *,
        residual: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """Convolves with this layer's geometry and other weights; see :func:`conv2d`."""
        return conv2d(
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            residual=residual,
            relu=relu,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Applies a linear map, and a ReLU if wanted.

    Args:
        x: ``(..., I)``.
        weight: ``(O, I)``.
        bias: ``(O,)``.
        relu: whether a ReLU follows.

    Returns:
        ``(..., O)``.
    """
    with_gradients = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
    )
    # Without gradients the number of rows may not decide: a row's bits would depend on its batch.
    work = x.numel() * len(weight) if with_gradients else weight.numel()
    enough = _LEAST_PRODUCTS if with_gradients else _LEAST_WEIGHTS
    if work < enough or not _applies(x, weight):
        out = F.linear(x, weight, bias)
        return F.relu(out) if relu else out
    if with_gradients:
        return _LinearWithGradients.apply(x, weight, bias, relu)  # type: ignore[no-untyped-call]
    return _product(x, weight, bias, relu=relu)


def linear_at_once(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Applies a linear map without gradients in a single product, whatever the number of rows.

    Each number of rows is a kernel of half a MiB that oneDNN keeps: for callers with few of them.

    Args:
        x: ``(n, I)``.
        weight: ``(O, I)``.
        bias: ``(O,)``.

    Returns:
        ``(n, O)``, row by row the bits of :func:`linear` where ``keeps_rows(weight)``.
    """
    return _kernel(x, weight, bias, False) if keeps_rows(weight) else linear(x, weight, bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Convolves, and adds a residual and applies a ReLU if wanted.

    Args:
        x: ``(B, I, H, W)``.
        weight: ``(O, I / groups, k, k)``.
        bias: ``(O,)``.
        stride: of the kernel.
        padding: zeros around the image.
        dilation: spacing of the kernel.
        groups: channel groups.
        residual: ``(B, O, H', W')``, added before the ReLU.
        relu: whether a ReLU follows.

    Returns:
        ``(B, O, H', W')``; channels last in memory where oneDNN computed it.
    """
    if torch.is_grad_enabled() or not _applies(x, weight):
        out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        # The backward pass of a convolution does not read its output.
        out = out if residual is None else out.add_(residual)
        return F.relu_(out) if relu else out
    x = x.contiguous(memory_format=torch.channels_last)
    place = (padding, stride, dilation, groups)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
        after = "relu" if relu else None
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, residual, weight, bias, *place, "add", None, after, [], None
        )
    after = "relu" if relu else "none"
    out = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *place, after, [], "")
    if weight.numel() >= _LARGE_KERNEL:
        # oneDNN makes a copy of the kernel; the next one seldom fits into the hole that it leaves.
        release_freed_memory()
    return out


def available() -> bool:
    """Whether oneDNN is there, switched on, and known to be the better one on this processor."""
    return _X86 and bool(torch.backends.mkldnn.enabled) and _has_kernels()


def is_used(weight: Tensor) -> bool:
    """Whether convolutions and products with a weight go through oneDNN in inference here."""
    return not torch.is_grad_enabled() and _applies(weight, weight)


def keeps_rows(weight: Tensor) -> bool:
    """Whether :func:`linear` in inference gives a row the same bits in whatever batch it stands."""
    return is_used(weight) and weight.numel() >= _LEAST_WEIGHTS


@functools.cache
def _has_kernels() -> bool:
    # They belong to torch's compiler, which may rename them.
    names = ("_linear_pointwise", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


class _LinearWithGradients(torch.autograd.Function):
    """The linear map with its first derivatives; there are no second ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        out = _product(x, weight, bias, relu=relu)
        ctx.relu = relu
        ctx.save_for_backward(x, weight, *([out] if relu else []))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable lets a second derivative through where the first gradient
        # needs none itself; it would be wrong without a word.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a linear layer of oneDNN can be differentiated once only: leave out "
                "create_graph=True, or use torch.backends.mkldnn.flags(enabled=False)"
            )
        x, weight, *out = ctx.saved_tensors
        if ctx.relu:
            grad = grad * (out[0] > 0)
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        rows = grad.reshape(-1, len(weight))  # (n, O)
        return (
            _product(grad, weight.t()) if wants_x else None,
            _product(rows.t(), x.reshape(-1, weight.shape[1]).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
            None,
        )


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    # Every number of rows is a kernel of its own of half a MiB, made at run time and kept; the
    # number of tracks changes from frame to frame. So rows go in parts of few sizes, but for
    # pixels, which are more and as many in every frame.
    num_rows = x.numel() // max(x.shape[-1], 1)
    if num_rows >= _MANY_ROWS or (num_rows <= _PART and num_rows % _STEP == 0):
        return _kernel(x, weight, bias, relu)
    rows = x.reshape(num_rows, x.shape[-1])
    out = x.new_empty(num_rows, len(weight))
    start = 0
    while start < num_rows:
        size = _LARGE_PART if num_rows - start >= _LARGE_PART else min(_PART, num_rows - start)
        part = rows[start : start + size]
        if size % _STEP:
            part = F.pad(part, (0, 0, 0, -size % _STEP))
        out[start : start + size] = _kernel(part, weight, bias, relu)[:size]
        start += size
    return out.view(*x.shape[:-1], len(weight))


def _kernel(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    after = "relu" if relu else "none"
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # part of a wider matrix takes oneDNN hundreds of times longer
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "")


def _applies(x: Tensor, weight: Tensor) -> bool:
    """Whether plain float32 results on a CPU are wanted, and oneDNN may give them."""
    return (
        available()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not is_recorded()
        and not torch.is_autocast_enabled("cpu")
    )
