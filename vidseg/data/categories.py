"""Class names of the public data sets, and how COCO classes become theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg.errors import DataError

from .catalog import Metadata

__all__ = ["FAMILIES", "FROM_COCO", "category_map"]

_YTVIS_2019 = """person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit
duck cat cow fish train horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane
truck zebra tiger elephant snowboard boat shark mouse frog eagle earless_seal tennis_racket"""

_YTVIS_2021 = """airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish
flying_disc fox frog giant_panda giraffe horse leopard lizard monkey motorbike mouse parrot person
rabbit shark skateboard snake snowboard squirrel surfboard tennis_racket tiger train truck turtle
whale zebra"""

# "Vehical" is how the data set itself spells it.
_OVIS = """Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda
Lizard Parrot Monkey Rabbit Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehical"""

FAMILIES = {
    "ytvis_2019": _YTVIS_2019.split(),
    "ytvis_2021": _YTVIS_2021.split(),
    "ovis": _OVIS.split(),
}
"""Class names by family; the data set's ids count from 1."""

FROM_COCO = {
    "ytvis_2019": {
        **{1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15},
        **{22: 32, 23: 20, 24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40},
    },
    "ytvis_2021": {
        **{1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7},
        **{22: 12, 23: 2, 24: 40, 25: 18, 34: 14, 35: 31, 36: 31, 41: 29, 42: 33, 43: 34},
    },
    "ovis": {
        **{1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5, 20: 6},
        **{21: 7, 22: 8, 23: 9, 24: 10, 25: 11},
    },
}
"""COCO category id to category id of the target, by family, as published."""


def category_map(source: Metadata, target: Metadata) -> np.ndarray:
    """Tells which class of ``target`` each class of ``source`` becomes.

    COCO classes become those of YouTube-VIS and OVIS by the published tables; any other pair is
    matched by name, where case, spaces and underscores do not count.

    Returns:
        int64 array: contiguous class of ``target`` by contiguous class of ``source``, -1 for none.

    Raises:
        DataError: if no class at all has a counterpart.
    """
    table = FROM_COCO.get(target.family) if source.family == "coco" else None
    if table is not None:
        labels = {category: label for label, category in enumerate(target.category_ids)}
        mapped = [labels.get(table.get(category, -1), -1) for category in source.category_ids]
    else:
        by_name = {_plain(name): label for label, name in enumerate(target.classes)}
        mapped = [by_name.get(_plain(name), -1) for name in source.classes]
    if max(mapped, default=-1) < 0:
        raise DataError(
            f"DATASETS.DATASET_NEED_MAP: no class of {source.name} ({_some(source.classes)}) has a "
            f"counterpart in {target.name} ({_some(target.classes)})"
        )
    return np.array(mapped, dtype=np.int64)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
