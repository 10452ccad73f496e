"""Whole collections of documents to codes and back, one document in memory at a time.

Shapes: T frames, D input width.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidseg.data import Records
from vidseg.data.sequence_mapper import SequenceMapper
from vidseg.errors import DataError, UserError
from vidseg.files import make_folder, write_atomically

from .codes_file import CodesFile, check_id
from .documents import DocumentCodes
from .samples import naming_document, read_sample

__all__ = ["decode_file", "encode_records", "frame_rate_of", "read_samples"]

logger = logging.getLogger(__name__)

OnError = Callable[[UserError], object]
"""Told of a document that is left out."""


def read_samples(records: Records, on_error: OnError) -> Iterator[dict[str, Any]]:
    """Reads whole documents, one after the other; damaged ones are reported and left out.

    Args:
        records: of a features data set.
        on_error: told of each damaged document.
    """
    mapper, rng = SequenceMapper(), np.random.default_rng(0)  # draws nothing for whole documents
    for record in records:
        reason = records.damaged.get(record["video_id"])
        if reason is not None:
            on_error(DataError(reason))
            continue
        try:
            sample = mapper(record, rng)
        except DataError as error:
            on_error(error)
            continue
        yield sample


def frame_rate_of(records: Records, default: float) -> float:
    """Gives the frame rate that all documents have, in frames per second.

    Args:
        records: of a features data set.
        default: of documents that state none, and of all if they differ.
    """
    rates = {float(record.get("frame_rate", default)) for record in records}
    if len(rates) == 1:
        return rates.pop()
    logger.warning(
        "the documents have frame rates from %g to %g; %g is noted for all", *_ends(rates), default
    )
    return default


def encode_records(
    model: Any, records: Records, on_error: OnError, num_levels: int | None = None
) -> Iterator[DocumentCodes]:
    """Encodes documents as they are asked for; those that cannot be are reported and left out.

    Args:
        model: a ``DocumentRQVAE`` in eval mode, or another with its ``encode``.
        records: of a features data set.
        on_error: told of each document that is left out.
        num_levels: how many codebooks to use; all by default.

    Yields:
        The codes with the id of the document, on the CPU.

    Raises:
        DataError: if the model takes features of another width, or not one document was sound.
        UserError: if the model's codebooks were never set.
    """
    _check_fits(model, records)
    device = model.rvq.codebooks.device
    count = 0
    for sample in read_samples(records, on_error):
        try:
            check_id(sample["video_id"])
            features, mask = read_sample(sample, model.input_dim, device)
            with naming_document(sample):
                tokens = model.encode(features, mask, num_levels)
        except DataError as error:
            on_error(error)
            continue
        count += 1
        yield DocumentCodes(
            tokens.codes.cpu(),
            tokens.window_mask.cpu(),
            tokens.num_frames,
            {**tokens.meta, "id": sample["video_id"]},
        )
    if not count:
        raise DataError("not one document could be encoded, so nothing was written")


def decode_file(model: Any, codes: CodesFile, folder: Path, on_error: OnError) -> int:
    """Rebuilds the documents of a codes file, each in a ``.npy`` file with the id as its name.

    Args:
        model: whose codes these are, in eval mode.
        codes: the file.
        folder: for the float32 arrays ``(T, D)``; ids with slashes get folders of their own.
        on_error: told of each document that is left out.

    Returns:
        Number of documents written.

    Raises:
        DataError: if the codes are damaged.
    """
    count = 0
    for tokens in codes:
        try:
            path = _path_of(str(tokens.meta["id"]), folder)
            _check_room(tokens, model.input_dim, folder)
            features = _decoded(model, tokens)
            make_folder(path.parent, "--output: the folder")
        except UserError as error:
            on_error(error)
            continue
        write_atomically(path, lambda file, array=features: np.save(file, array))  # type: ignore[misc]
        count += 1
    return count


def _check_fits(model: Any, records: Records) -> None:
    if not bool(getattr(model.rvq, "initialized", True)):
        raise UserError(
            "the codebooks of these weights were never set; train until the warm-up is over"
        )
    width = records.about["feature_dim"]
    if width != model.input_dim:
        origin = records[0].get("json_file", "the data set")
        raise DataError(
            f"{origin} has {width} features per frame, the model takes {model.input_dim} "
            "(MODEL.RQVAE.INPUT_DIM)"
        )


def _path_of(name: str, folder: Path) -> Path:
    """Gives the file of a document; what a stranger wrote must not lead out of the folder."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"document {name!r}: its id cannot be the name of a file")
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.npy")


def _check_room(tokens: DocumentCodes, width: int, folder: Path) -> None:
    """Refuses lengths that no honest file has: one code may stand for any number of frames."""
    size, free = tokens.num_frames * width * 4, shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"document {tokens.meta['id']!r}: its {tokens.num_frames} frames would take "
            f"{size / 1e9:.3g} GB, {free / 1e9:.3g} GB are free in {folder}"
        )


def _decoded(model: Any, tokens: DocumentCodes) -> np.ndarray:
    try:
        with torch.no_grad():
            decoded: np.ndarray = model.decode(tokens).float().cpu().numpy()
    except (ValueError, MemoryError, RuntimeError) as error:
        # Torch reports a lack of memory as RuntimeError.
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise DataError(f"document {tokens.meta['id']!r} cannot be decoded: {reason}") from error
    return decoded


def _ends(values: set[float]) -> Sequence[float]:
    return min(values), max(values)
