"""Where each track was: a running mean of position codes, and the last ones to weigh the next by.

Shapes: P tracks, n tracks of a block, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NUM_RECENT", "PositionMemory", "moved_positions"]

NUM_RECENT = 9
"""Codes that are kept; with the current one a window of ten."""

_BLOCK = 128


@dataclass
class PositionMemory:
    """Where each track was, weighted by how much it looked like itself.

    The ring is the largest thing that a track has in memory. So it comes in blocks, which ``step``
    takes over and renews one after the other: at no time are there two of it. And as tracks stand
    in order of birth, so that most blocks of a crowd hold young ones, ``step`` makes a block only
    as wide as the codes that one of its tracks has had.

    Attributes:
        positions: similarity-guided running mean of position codes, ``(P, C)``.
        recent: unit vectors of the last codes, a ring, ``(n, r, C)`` for each 128 tracks with r
            up to 9; zero, or left out, where not yet written.
        counts: codes seen so far, int64 ``(P,)``.

    Source: DVIS-DAQ (Zhou et al., 2024); the rule is that of CTVIS (Ying et al., ICCV 2023).
    """

    positions: Tensor
    recent: list[Tensor]
    counts: Tensor

    @classmethod
    def empty(cls, num_tracks: int, channels: int, device: torch.device | str) -> PositionMemory:
        """Gives tracks that have not been anywhere yet."""
        ring = torch.zeros(num_tracks, NUM_RECENT, channels, device=device)
        return cls(
            torch.zeros(num_tracks, channels, device=device),
            list(ring.split(_BLOCK)),
            torch.zeros(num_tracks, dtype=torch.int64, device=device),
        )

    def rows(self, index: Tensor) -> PositionMemory:
        """Gives copies of the tracks of ``index``."""
        ring = self._whole_ring()[index]
        return PositionMemory(self.positions[index], list(ring.split(_BLOCK)), self.counts[index])

    def append(self, num_tracks: int) -> PositionMemory:
        """Gives a copy with ``num_tracks`` new, empty rows at its end."""
        new = PositionMemory.empty(num_tracks, self.positions.shape[1], self.positions.device)
        ring = torch.cat([self._whole_ring(), *new.recent])
        return PositionMemory(
            torch.cat([self.positions, new.positions]),
            list(ring.split(_BLOCK)),
            torch.cat([self.counts, new.counts]),
        )

    def update(self, codes: Tensor, visible: Tensor) -> PositionMemory:
        """Writes one frame's codes ``(P, C)``; rows that are not ``visible`` (P,) stay as is."""
        own = PositionMemory(self.positions, list(self._whole_ring().split(_BLOCK)), self.counts)
        return own._written(codes, visible, [block.clone() for block in own.recent])

    def step(self, index: Tensor, num_new: int, codes: Tensor, visible: Tensor) -> PositionMemory:
        """Does what ``rows``, ``append`` and ``update`` do one after the other, in place.

        It takes the ring over: of this memory only ``positions`` and ``counts`` can be read after.

        Args:
            index: tracks that stay, int64, ascending.
            num_new: new, empty rows behind them.
            codes: of all these rows, ``(P', C)``.
            visible: which of them are written, bool ``(P',)``.

        Raises:
            RuntimeError: if an earlier step took the ring.
        """
        if torch.is_grad_enabled():  # a backward pass reads the ring as it was
            after = self.rows(index).append(num_new).update(codes, visible)
            self.recent = []
            return after
        ring, self.recent = self._ring(), []
        positions = _rows_and_zeros(self.positions, index, num_new)
        counts = _rows_and_zeros(self.counts, index, num_new)
        most = [block.amax() for block in counts.split(_BLOCK)] if len(counts) else [counts.sum()]
        widths = (torch.stack(most) + 1).clamp(max=NUM_RECENT).tolist()  # one place to write to
        _renew(ring, index, num_new, widths)
        return PositionMemory(positions, ring, counts)._written(codes, visible, ring)

    def _ring(self) -> list[Tensor]:
        if not self.recent:
            raise RuntimeError(
                "this memory of positions was stepped from already and has no ring any more; go on"
                " with the memory that the step gave"
            )
        return self.recent

    def _whole_ring(self) -> Tensor:
        """Gives a copy of the ring in one piece, ``(P, 9, C)``."""
        return torch.cat(
            [F.pad(block, (0, 0, 0, NUM_RECENT - block.shape[1])) for block in self._ring()]
        )

    def _written(self, codes: Tensor, visible: Tensor, ring: list[Tensor]) -> PositionMemory:
        """Writes a frame's codes into ``ring``, which is this memory's own or a copy of it."""
        columns = (self.positions, self.counts, codes, visible)
        blocks = zip(self.recent, ring, *(column.split(_BLOCK) for column in columns), strict=True)
        # Block by block: a dozen products of the size of the codes are alive at once.
        after = [_write_block(*block) for block in blocks]
        positions, counts = (torch.cat(parts) for parts in zip(*after, strict=True))
        return PositionMemory(positions, ring, counts)


def moved_positions(
    recent: Tensor, positions: Tensor, counts: Tensor, codes: Tensor
) -> tuple[Tensor, Tensor]:
    """Moves running means towards new codes, by as much as these resemble the recent ones.

    Args:
        recent: unit vectors of the last codes, ``(n, r, C)``, zero where there is none.
        positions: the means, ``(n, C)``.
        counts: codes seen so far, int64 ``(n,)``.
        codes: the new ones, ``(n, C)``.

    Returns:
        The means after them and the codes' unit vectors, each ``(n, C)``.
    """
    codes = codes.float()
    unit = F.normalize(codes, dim=-1)  # (n, C)
    seen = counts.clamp(max=NUM_RECENT)
    similarity = torch.einsum("prc,pc->p", recent, unit) / seen.clamp(min=1)
    share = similarity.clamp(min=0).masked_fill(counts == 0, 1.0)[:, None]
    return (1 - share) * positions + share * codes, unit


def _write_block(
    recent: Tensor,
    written: Tensor,
    positions: Tensor,
    counts: Tensor,
    codes: Tensor,
    visible: Tensor,
) -> tuple[Tensor, Tensor]:
    """Writes codes ``(n, C)`` into ``written``, gives new positions ``(n, C)`` and counts."""
    moved, unit = moved_positions(recent, positions, counts, codes)
    place = torch.arange(len(written), device=written.device), counts % NUM_RECENT
    written[place] = torch.where(visible[:, None], unit, written[place])
    return torch.where(visible[:, None], moved, positions), counts + visible


def _renew(ring: list[Tensor], index: Tensor, num_new: int, widths: list[int]) -> None:
    """Leaves the rows of ``index``, ascending, and ``num_new`` zero rows in the blocks of a ring.

    Rows only ever move forward, so that what is read next still stands in the old blocks.

    Args:
        ring: blocks, changed in place.
        index: rows that stay, int64.
        num_new: rows behind them.
        widths: of the new blocks; all behind is zero in the old ones.
    """
    num_kept, channels = len(index), ring[0].shape[2]
    starts = torch.arange(len(ring) + 1, device=index.device) * _BLOCK
    bounds = torch.searchsorted(index, starts).tolist()  # of the kept rows that each block has
    for number, width in enumerate(widths):
        start = number * _BLOCK
        size = min(_BLOCK, num_kept + num_new - start)
        block = ring[0].new_zeros(size, width, channels)
        for old in range(number, len(ring)):
            low, high = max(bounds[old], start), min(bounds[old + 1], start + size)
            if low < high:
                rows, shared = index[low:high] - old * _BLOCK, min(width, ring[old].shape[1])
                block[low - start : high - start, :shared] = ring[old][rows, :shared]
        ring[number : number + 1] = [block]
    del ring[len(widths) :]


def _rows_and_zeros(values: Tensor, index: Tensor, num_zeros: int) -> Tensor:
    return torch.cat([values[index], values.new_zeros(num_zeros, *values.shape[1:])])
