"""What the evaluator keeps of the documents of a split, as json, and the sums over all of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .metrics import Rates, centred_energy, rates, snr
from .retrieval import HALVES

__all__ = ["SplitResults", "pack", "unpack"]

Floats = NDArray[np.float64]


def pack(tensor: Tensor) -> dict[str, Any]:
    """Gives a tensor as plain json; of a sparse vector, its indices and values."""
    if tensor.is_sparse:
        coalesced = tensor.coalesce()
        return {
            "size": tensor.shape[0],
            "indices": pack(coalesced.indices()[0].to(torch.int32)),
            "values": pack(coalesced.values()),
        }
    array = tensor.detach().cpu().contiguous().numpy()
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(data).decode(),
    }


def unpack(packed: Mapping[str, Any]) -> Tensor:
    """Gives back what was packed."""
    if "size" in packed:
        indices = unpack(packed["indices"]).long().unsqueeze(0)
        return torch.sparse_coo_tensor(
            indices,
            unpack(packed["values"]),
            (packed["size"],),
            is_coalesced=True,
            check_invariants=False,
        )
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    array = np.frombuffer(base64.b64decode(packed["data"]), dtype)
    return torch.from_numpy(array.astype(packed["dtype"]).reshape(packed["shape"]))


@dataclass
class SplitResults:
    """Sums over the documents of a split, and what has to be kept of each.

    Attributes:
        topics: class of each document, -1 where it has none.
        vectors: descriptors of all documents by method; a method that a document lacks is left out.
        halves: descriptors of the first and of the second halves by method, of the documents that
            have both.
        codes: ``(M, Q)`` of the valid windows of all documents.
        positions: ``(M,)`` index of each of these windows in its document.
        num_positions: windows of the longest document.
    """

    topics: list[int] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    halves: dict[str, tuple[list[Tensor], list[Tensor]]] = field(default_factory=dict)
    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    positions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    num_positions: int = 0
    _num_frames: int = 0
    _num_windows: int = 0
    _seconds: float = 0.0
    _input_dim: int = 0
    _energy: float = 0.0
    _feature_sum: Floats = field(default_factory=lambda: np.zeros(1))
    _errors: Floats = field(default_factory=lambda: np.zeros(1))
    _latent: Floats = field(default_factory=lambda: np.zeros(2))
    _position_sums: Floats = field(default_factory=lambda: np.zeros((2, 0)))

    @classmethod
    def read(cls, results: Iterable[Mapping[str, Any]]) -> SplitResults:
        """Goes once over what was kept of each document."""
        split = cls()
        codes, positions = [], []
        for result in results:
            mask = unpack(result["window_mask"])
            codes.append(unpack(result["codes"])[mask].numpy().astype(np.int64))
            positions.append(mask.nonzero()[:, 0].numpy())
            split._add(result, len(mask))
        if codes:
            split.codes, split.positions = np.concatenate(codes), np.concatenate(positions)
        whole = {name: v for name, v in split.vectors.items() if len(v) == split.num_documents}
        split.vectors = whole
        return split

    @property
    def num_documents(self) -> int:
        """How many documents there are."""
        return len(self.topics)

    def reconstruction(self) -> dict[str, float]:
        """Gives the ratios of signal to noise in dB, with and without quantisation and by level."""
        energy = centred_energy(self._energy, self._feature_sum, self._num_frames)
        by_level = [snr(energy, error) for error in self._errors]
        metrics = {
            "SNR": by_level[-1],
            "SNR_unquantized": by_level[0],
            "quantization_loss": by_level[0] - by_level[-1],
            "SNR_latent": snr(float(self._latent[1]), float(self._latent[0])),
            "MSE": float(self._errors[-1]) / max(1, self._num_frames * self._input_dim),
        }
        for level, value in enumerate(by_level[1:], start=1):
            metrics[f"SNR_levels_{level}"] = value
        return metrics

    def rates(self, codebook_size: int) -> Rates:
        """Gives what the codes of all documents cost."""
        return rates(
            num_frames=self._num_frames,
            num_windows=self._num_windows,
            seconds=self._seconds,
            input_dim=self._input_dim,
            num_levels=self.codes.shape[1],
            codebook_size=codebook_size,
        )

    def position_mse(self) -> Floats:
        """Gives the mean squared error of the frames nearest to each window, by its index."""
        sums, frames = self._position_sums
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / (frames * self._input_dim))

    def _add(self, result: Mapping[str, Any], num_windows: int) -> None:
        self.topics.append(result["topic"])
        self._num_frames += result["num_frames"]
        self._num_windows += num_windows
        self._seconds += result["seconds"]
        self._input_dim = result["input_dim"]
        self._energy += result["energy"]
        self._feature_sum = self._feature_sum + unpack(result["feature_sum"]).numpy()
        self._errors = self._errors + np.array(result["errors"])
        self._latent = self._latent + np.array(result["latent_error"])
        parts = [unpack(result[name]).numpy() for name in ("position_errors", "position_frames")]
        self._add_positions(np.stack(parts).astype(np.float64))
        self._add_vectors({name: unpack(one) for name, one in result["vectors"].items()})

    def _add_positions(self, sums: Floats) -> None:
        longest = max(self.num_positions, sums.shape[1])
        grown = np.zeros((2, longest))
        grown[:, : self.num_positions] = self._position_sums
        grown[:, : sums.shape[1]] += sums
        self._position_sums, self.num_positions = grown, longest

    def _add_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        first, second = HALVES
        for name, vector in vectors.items():
            if name.startswith(first):
                method = name.removeprefix(first)
                pair = self.halves.setdefault(method, ([], []))
                pair[0].append(vector)
                pair[1].append(vectors[second + method])
            elif not name.startswith(second):
                self.vectors.setdefault(name, []).append(vector)
