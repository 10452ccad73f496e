"""Similarities in [-1, 1] between many descriptors, with memory that is bounded.

Shapes: N documents, B queries, W windows of a document (padded), V width, K entries of a bag.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["BagSet", "DescriptorSet", "VectorSet", "WindowSet", "collect"]

_BLOCK_ROWS = 512  # windows of either side at once; their products should stay in the cache
_MASKED = -4.0  # added to similarities of padding, so that a real one always exceeds them


class DescriptorSet(ABC):
    """Descriptors of some documents, of one method."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> DescriptorSet:
        """Gives the descriptors of some of the documents."""

    @abstractmethod
    def similarities(self, queries: DescriptorSet) -> Tensor:
        """Compares all documents with some queries of the same method.

        Args:
            queries: B descriptors.

        Returns:
            ``(B, N)`` float32 in [-1, 1] on the CPU; 0 for documents without valid windows.
        """


def collect(descriptors: Sequence[Tensor]) -> DescriptorSet:
    """Puts descriptors that ``retrieval.aggregate`` gave side by side.

    Args:
        descriptors: all dense vectors, all rows of vectors, or all sparse.

    Raises:
        ValueError: if there is none.
    """
    if not descriptors:
        raise ValueError("there is no document to compare with")
    if descriptors[0].is_sparse:
        return BagSet(_to_csr(descriptors))
    if descriptors[0].ndim == 1:
        return VectorSet(torch.stack(tuple(descriptors)).cpu().float())
    return WindowSet([windows.cpu().float() for windows in descriptors])


class VectorSet(DescriptorSet):
    """One unit vector for each document, compared by cosine.

    Args:
        vectors: ``(N, V)``.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, indices: NDArray[np.int64]) -> VectorSet:
        """See the base class."""
        return VectorSet(self.vectors[torch.from_numpy(indices)])

    def similarities(self, queries: DescriptorSet) -> Tensor:
        """See the base class."""
        assert isinstance(queries, VectorSet)
        return (queries.vectors @ self.vectors.T).clamp(-1, 1)


class BagSet(DescriptorSet):
    """A sparse unit vector for each document, compared by cosine.

    Args:
        bags: ``(N, K)``, one row for each document.
    """

    def __init__(self, bags: sparse.csr_array) -> None:
        self.bags = bags

    def __len__(self) -> int:
        return int(self.bags.shape[0])

    def take(self, indices: NDArray[np.int64]) -> BagSet:
        """See the base class."""
        return BagSet(self.bags[indices])

    def similarities(self, queries: DescriptorSet) -> Tensor:
        """See the base class."""
        assert isinstance(queries, BagSet)
        product = (queries.bags @ self.bags.T).toarray()
        return torch.from_numpy(product.astype(np.float32)).clamp(-1, 1)


class WindowSet(DescriptorSet):
    """Any number of unit vectors for each document, compared by the best match of each of them.

    ``s(x, y)`` is the mean over the windows of x of the similarity to the nearest window of y,
    and the same with x and y exchanged; the mean of both.

    Args:
        windows: ``(W, V)`` for each document, W of its own.
    """

    def __init__(self, windows: Sequence[Tensor]) -> None:
        self.windows = list(windows)

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, indices: NDArray[np.int64]) -> WindowSet:
        """See the base class."""
        return WindowSet([self.windows[index] for index in indices])

    def similarities(self, queries: DescriptorSet) -> Tensor:
        """See the base class."""
        assert isinstance(queries, WindowSet)
        result = torch.zeros(len(queries), len(self))
        blocks = list(_blocks(self.windows))
        for rows, left in _blocks(queries.windows):
            for columns, right in blocks:
                result[rows[:, None], columns] = _maxsim(left, right)
        return result.clamp(-1, 1)


class _Block:
    """Windows of some documents of similar length, padded to the longest of them.

    Windows come before documents, so that a maximum over windows reads memory in order.

    Attributes:
        vectors: ``(W, B, V)``, zeros where padded.
        valid: ``(W, B)`` float, 1 where there is a window.
    """

    def __init__(self, windows: Sequence[Tensor]) -> None:
        self.vectors = pad_sequence(list(windows))
        lengths = torch.tensor([len(one) for one in windows])
        valid = torch.arange(len(self.vectors))[:, None] < lengths
        self.valid = valid.float()
        self._shift = torch.where(valid, 0.0, _MASKED).unsqueeze(-1)

    def as_rows(self) -> Tensor:
        """Gives ``(W, B, V + 2)`` whose products with ``as_columns`` are shifted where padded."""
        return torch.cat([self.vectors, self._shift, torch.ones_like(self._shift)], -1)

    def as_columns(self) -> Tensor:
        """Gives ``(W, B, V + 2)``, the other side of the product."""
        return torch.cat([self.vectors, torch.ones_like(self._shift), self._shift], -1)


def _blocks(windows: Sequence[Tensor]) -> Iterator[tuple[Tensor, _Block]]:
    """Groups documents by length; gives their indices and the block, of bounded size."""
    filled = [index for index, one in enumerate(windows) if len(one)]
    order = sorted(filled, key=lambda index: len(windows[index]))
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(windows[order[stop]]) <= _BLOCK_ROWS:
            stop += 1
        members = order[start:stop]
        yield torch.tensor(members), _Block([windows[index] for index in members])
        start = stop


def _maxsim(left: _Block, right: _Block) -> Tensor:
    """Gives the symmetric similarities ``(B, C)`` of the documents of two blocks."""
    columns = right.as_columns()
    num_left, num_right = left.valid.shape[1], right.valid.shape[1]
    row_sum = torch.zeros(num_left, num_right)
    best_of_column = torch.full((num_left, *right.valid.shape), 2 * _MASKED)
    flat = columns.flatten(0, 1).T
    # Long documents are taken in pieces: the products of two of them would not fit in memory.
    step = max(1, _BLOCK_ROWS**2 // (num_left * right.valid.numel()))
    for piece, valid in zip(left.as_rows().split(step), left.valid.split(step), strict=True):
        products = (piece.flatten(0, 1) @ flat).view(len(piece), num_left, *right.valid.shape)
        row_sum += (products.amax(2) * valid.unsqueeze(-1)).sum(0)
        best_of_column = torch.maximum(best_of_column, products.amax(0))
    row_mean = row_sum / left.valid.sum(0).unsqueeze(-1)
    column_mean = (best_of_column * right.valid).sum(1) / right.valid.sum(0)
    return (row_mean + column_mean) / 2


def _to_csr(bags: Sequence[Tensor]) -> sparse.csr_array:
    """Lays sparse vectors out as the rows of a matrix."""
    parts = [bag.coalesce().cpu() for bag in bags]
    lengths = [len(part.values()) for part in parts]
    return sparse.csr_array(
        (
            torch.cat([part.values() for part in parts]).float().numpy(),
            torch.cat([part.indices()[0] for part in parts]).numpy(),
            np.concatenate([[0], np.cumsum(lengths)]),
        ),
        shape=(len(parts), bags[0].shape[0]),
    )
