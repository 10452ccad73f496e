"""Names of the public data sets of action segmentation, as the published code lays them out.

All lie below the data set root (``$VIDSEG_DATASETS``, else ``datasets``); nothing is read before
one is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidseg.data import DatasetCatalog

from .layout import SPLIT_FORMAT, SplitFile

__all__ = ["register_public_sets"]

_FEATURES_OF_TEMPORAL_CNNS = "get data.zip from https://zenodo.org/records/3625992"
_FEATURES_OF_FACT = (
    "get the processed data that https://github.com/ZijiaLewisLu/CVPR2024-FACT links to"
)


@dataclass(frozen=True)
class _PublicSet:
    """A set with its splits; ``{part}`` stands for train or test.

    Args:
        folder: below the data set root.
        splits: split files below it, by the name of the split.
        step: how to get the data.
        transpose: whether its feature files hold (D, T).
        frame_rate: in frames per second; 0 if it varies.
    """

    folder: str
    splits: dict[str, str]
    step: str
    transpose: bool = False
    frame_rate: float = 0.0


def _bundles(count: int) -> dict[str, str]:
    return {f"split{n}": f"splits/{{part}}.split{n}.bundle" for n in range(1, count + 1)}


_SETS = {
    "breakfast": _PublicSet("breakfast", _bundles(4), _FEATURES_OF_TEMPORAL_CNNS, True, 15.0),
    "gtea": _PublicSet("gtea", _bundles(4), _FEATURES_OF_TEMPORAL_CNNS, True, 15.0),
    "50salads": _PublicSet("50salads", _bundles(5), _FEATURES_OF_TEMPORAL_CNNS, True, 30.0),
    "egoprocel": _PublicSet("egoprocel", {"split1": "split1.{part}"}, _FEATURES_OF_FACT),
    "epic_kitchens": _PublicSet(
        "epic-kitchens/processed", {"split1": "split1.{part}"}, _FEATURES_OF_FACT
    ),
}


def register_public_sets() -> None:
    """Adds ``<set>_split<n>_{train,test}`` to the catalog, and the format of split files."""
    DatasetCatalog.register_format(SPLIT_FORMAT)
    for name, public in _SETS.items():
        for split, pattern in public.splits.items():
            for part in ("train", "test"):
                file = f"{public.folder}/{pattern.format(part=part)}"
                hint = _hint(public, file)
                DatasetCatalog.register(
                    f"{name}_{split}_{part}",
                    SplitFile(
                        file,
                        transpose=public.transpose,
                        trim=True,
                        frame_rate=public.frame_rate,
                        hint=hint,
                    ),
                    evaluator="action_segmentation",
                    root=public.folder,
                    json_file=file,
                    image_root=f"{public.folder}/features",
                    prepare=hint,
                )


def _hint(public: _PublicSet, split: str) -> str:
    return (
        "expected below $VIDSEG_DATASETS (or ./datasets):\n"
        f"    {split}\n"
        f"    {public.folder}/features/<video>.npy\n"
        f"    {public.folder}/groundTruth/<video>.txt\n"
        f"    {public.folder}/mapping.txt\n"
        f"to prepare it, {public.step}; see datasets/README.md"
    )


register_public_sets()
