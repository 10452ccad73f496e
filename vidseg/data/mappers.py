"""What turns records into samples, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg.errors import UserError
from vidseg.registry import Registry

__all__ = ["DATASET_MAPPER_REGISTRY", "Rejected", "Sample", "build_mapper", "mapper_class"]

Sample = dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """What a mapper returns of a record that training can learn nothing from this time.

    Attributes:
        reason: a few words that are the same for all records of the same kind, as ``no object is
            visible``; they are counted.
    """

    reason: str


DATASET_MAPPER_REGISTRY: Registry[Any] = Registry("DATASET_MAPPER")
"""Mappers by DATASETS.DATASET_TYPE: ``from_config(cfg, *, is_train, category_map)`` gives the
arguments of a class whose objects are called as ``mapper(record, rng)`` and return a sample or,
in training, ``Rejected``. A class also has

- ``reads``: what its records must hold, ``"frames"`` or ``"features"``;
- ``num_classes_key``: config key of the number of classes its labels may have, ``""`` for any;
- ``counts_classes``, if 0 under that key stands for the classes of the last training set;
- ``select(records, name, *, drop_empty)``: gives the records to train on, or raises ``DataError``;
- ``sample_bytes(record)``: size of a whole test sample in memory;
- ``stream``, if it can (see ``ClipMapper``), for long test videos.
"""


def mapper_class(kind: str) -> Any:
    """Gives the class registered as ``kind``.

    Raises:
        UserError: if there is none of that name.
    """
    from . import clip_mapper, sequence_mapper  # noqa: F401  (they register on import)

    try:
        return DATASET_MAPPER_REGISTRY.get(kind)
    except UserError as error:
        raise UserError(f"DATASETS.DATASET_TYPE: {error}") from None


def build_mapper(
    cfg: Any, kind: str, *, is_train: bool, category_map: np.ndarray | None = None
) -> Any:
    """Builds the mapper registered as ``kind``.

    Raises:
        UserError: if there is none of that name.
    """
    mapper = mapper_class(kind)
    return mapper(**mapper.from_config(cfg, is_train=is_train, category_map=category_map))
