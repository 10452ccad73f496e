"""Data sets in the layout of action segmentation: features, frame labels, class mapping, splits.

::

    features/<video>.npy       float (T, D), or (D, T) with the option transpose; or .npz, .pt
    groundTruth/<video>.txt    the name of a class in each line, one line per frame
    mapping.txt                "<number> <name>" in each line
    splits/train.split1.bundle the name of a video in each line, with or without .txt

``DATASETS.TRAIN`` and ``DATASETS.TEST`` take the path of a split, perhaps with options behind it:
``50salads/splits/test.split1.bundle?trim=1&labels=groundTruthCoarse``. Without ``groundTruth`` a
set can be predicted, not scored.

Shapes: T frames, D features per frame.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.data import Record, Records, dataset_root
from vidseg.data.feature_files import SUFFIXES, feature_shape
from vidseg.data.path_formats import PathFormat
from vidseg.errors import DataError, nearest

from .label_files import read_labels, read_mapping, read_split

__all__ = ["SPLIT_FORMAT", "SplitFile"]

_OPTIONS = ("features", "labels", "mapping", "transpose", "trim", "frame_rate")
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_MUCH = 0.1  # of a video; who trims more mixes rates, or videos

_FEW = 5  # videos without features that the nearest names are looked up of, which takes time

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFile:
    """Reads the videos that a split names when called; comparable.

    Args:
        split: file of a ``splits`` folder, or of the folder with features and labels itself;
            relative paths lie below the data set root.
        features: folder of the features, relative to the one that holds ``splits``.
        labels: folder of the frame labels, likewise.
        mapping: file with the classes, likewise.
        transpose: whether the feature files hold (D, T).
        trim: whether to cut features and labels of different lengths to the shorter.
        frame_rate: of features and labels, in frames per second; 0 if unknown.
        hint: how to get the data, added to the message when files are missing.
    """

    split: str
    features: str = ""
    labels: str = ""
    mapping: str = ""
    transpose: bool = False
    trim: bool = False
    frame_rate: float = 0.0
    hint: str = ""

    def __call__(self) -> Records:
        """Gives a record per video, in the order of the split.

        Records are those of ``vidseg.data.features.load_feature_index``, with ``labels`` (one
        contiguous number per frame) where there are any. What is wrong with the files of one video
        is told in ``Records.damaged``.

        Raises:
            DataError: if split, mapping or folders are missing or broken, or no video is sound.
        """
        self.require()
        places = self._places()
        classes: list[str] = []
        numbers: list[int] = []
        if places.is_annotated or places.mapping.is_file():
            classes, numbers = read_mapping(places.mapping)
        reader = _VideoReader(self, places, {name: i for i, name in enumerate(classes)})
        records = [reader.read(*item) for item in read_split(places.split).items()]
        reader.refuse_if_none_is_sound(records)
        dim = reader.check_dims(records)
        reader.refuse_if_none_is_sound(records)
        reader.report_trimming()
        return Records(
            records,
            classes=classes,
            category_ids=numbers,
            annotated=places.is_annotated,
            image_root=str(places.features),
            damaged=reader.damaged,
            about={"feature_dim": dim, "json_file": str(places.split)},
        )

    def require(self) -> None:
        """Checks that split and folders are there.

        Raises:
            DataError: if not; says what was expected, and how to get it.
        """
        places = self._places()
        if not places.split.is_file():
            raise DataError("; ".join(filter(None, (f"{places.split} is missing", self.hint))))
        wanted = {"features": places.features, "labels": places.labels, "mapping": places.mapping}
        for option, path in wanted.items():
            # Labels may be missing, unless somebody says where they are.
            if (option == "features" or getattr(self, option)) and not path.exists():
                way = self.hint or f"say where they are by the option {option}=..."
                raise DataError(f"{path}, which {places.split} needs, is missing; {way}")

    def _places(self) -> _Places:
        split = dataset_root() / self.split
        root = split.parent
        if not any((root / name).exists() for name in ("features", "groundTruth", "mapping.txt")):
            root = root.parent
        return _Places(
            split=split,
            features=_place(root, self.features or "features"),
            labels=_place(root, self.labels or "groundTruth"),
            mapping=_place(root, self.mapping or "mapping.txt"),
        )


@dataclass(frozen=True)
class _Places:
    split: Path
    features: Path
    labels: Path
    mapping: Path

    @property
    def is_annotated(self) -> bool:
        return self.labels.exists()


class _VideoReader:
    """Makes the records of a split and notes what is wrong with them.

    Args:
        source: the options.
        places: the files.
        classes: contiguous number of each class.
    """

    def __init__(self, source: SplitFile, places: _Places, classes: dict[str, int]) -> None:
        self.damaged: dict[str, str] = {}
        self._source = source
        self._places = places
        self._classes = classes
        self._shapes: dict[str, tuple[int, int]] = {}
        self._trimmed: dict[str, tuple[int, int]] = {}

    def read(self, video: str, line: int) -> Record:
        """Gives the record of the video that stands in a line of the split."""
        record: Record = {
            "video_id": video,
            "file_names": [],
            "lengths": [],
            "length": 0,
            "json_file": str(self._places.split),
        }
        if self._source.transpose:
            record["transposed"] = True
        if self._source.frame_rate:
            record["frame_rate"] = self._source.frame_rate
        try:
            self._fill(record, f"{self._places.split}:{line}: the video {video!r}")
        except DataError as error:
            self.damaged[video] = str(error)
        return record

    def refuse_if_none_is_sound(self, records: list[Record]) -> None:
        """Raises ``DataError`` for the first video if all are damaged."""
        if len(self.damaged) == len(records):
            raise DataError(next(iter(self.damaged.values())))

    def check_dims(self, records: list[Record]) -> int:
        """Gives the width of most files, and notes those of another.

        Raises:
            DataError: if the files look like (D, T) in place of (T, D), or the other way round.
        """
        lengths, dims = zip(*self._shapes.values(), strict=True)
        if len(set(lengths)) == 1 and len(set(dims)) > max(len(dims) // 2, 1):
            raise DataError(
                f"{self._places.features}: the files have {min(dims)} to {max(dims)} features per "
                f"frame and all {lengths[0]} frames, so they hold {self._form(not_as_read=True)}; "
                f"{self._way_to_transpose()}"
            )
        dim = statistics.mode(dims)
        for record in records:
            record["feature_dim"] = dim
            found = self._shapes.get(record["video_id"], (0, dim))[1]
            if found != dim:
                self.damaged.setdefault(
                    record["video_id"],
                    f"{record['file_names'][0]} has {found} features per frame, but most files of "
                    f"{self._places.features} have {dim}",
                )
        return dim

    def report_trimming(self) -> None:
        """Logs what was cut off."""
        if not self._trimmed:
            return
        shares = {video: 1 - min(two) / max(two) for video, two in self._trimmed.items()}
        worst = max(shares, key=lambda video: shares[video])
        frames, labels = self._trimmed[worst]
        say = _logger.warning if shares[worst] > _MUCH else _logger.info
        say(
            "%s: %d videos were cut to the shorter of features and labels, most %s: %d frames, %d "
            "labels%s",
            self._places.split,
            len(self._trimmed),
            worst,
            frames,
            labels,
            "; are both of the same frame rate?" if shares[worst] > _MUCH else "",
        )

    def _fill(self, record: Record, who: str) -> None:
        video = record["video_id"]
        path = self._find(video, who)
        record["file_names"] = [str(path)]
        shape = feature_shape(path, transposed=self._source.transpose)
        self._shapes[video] = shape
        length = shape[0]
        if self._places.is_annotated:
            labels = self._read_labels(video, who)
            length = self._agree(path, shape, len(labels), video)
            record["labels"] = labels[:length]
        record.update(lengths=[length], length=length)

    def _find(self, video: str, who: str) -> Path:
        folder = self._places.features
        for suffix in SUFFIXES:
            path = folder / f"{video}{suffix}"
            if path.is_file():
                return path
        close: list[str] = []
        if len(self.damaged) < _FEW:
            close = nearest(video, (file.stem for file in folder.iterdir()))
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise DataError(f"{who} has no features: {folder / video}.npy is missing{hint}")

    def _read_labels(self, video: str, who: str) -> list[int]:
        path = self._places.labels / f"{video}.txt"
        if not path.is_file():
            raise DataError(f"{who} has no labels: {path} is missing")
        return read_labels(path, self._classes, self._places.mapping)

    def _agree(self, path: Path, shape: tuple[int, int], num_labels: int, video: str) -> int:
        """Gives the common length of features and labels."""
        num_frames, dim = shape
        if num_frames == num_labels:
            return num_labels
        labels = self._places.labels / f"{video}.txt"
        if dim == num_labels:
            raise DataError(
                f"{path} holds {self._form(not_as_read=True)}: read as {self._form()} it has "
                f"{num_frames} frames of {dim} features, and {labels} has {num_labels} labels; "
                f"{self._way_to_transpose()}"
            )
        if not self._source.trim:
            more = "fewer" if num_frames < num_labels else "more"
            raise DataError(
                f"{path} has {num_frames} frames, {abs(num_frames - num_labels)} {more} than "
                f"{labels} has labels ({num_labels}); the option trim=1 cuts both to the shorter: "
                f"{self._places.split}?trim=1"
            )
        self._trimmed[video] = (num_frames, num_labels)
        return min(num_frames, num_labels)

    def _form(self, *, not_as_read: bool = False) -> str:
        is_transposed = self._source.transpose != not_as_read
        return "(features, frames)" if is_transposed else "(frames, features)"

    def _way_to_transpose(self) -> str:
        if self._source.transpose:
            return "leave out the option transpose"
        return f"if all files do, give the option transpose=1: {self._places.split}?transpose=1"


def _place(root: Path, path: str) -> Path:
    """Gives a path below the root of the layout, or as it stands if it is only there."""
    below, given = root / path, Path(path).expanduser()
    return given if given.exists() and not below.exists() else below


def _read_path(path: str, options: Mapping[str, str]) -> SplitFile:
    values: dict[str, Any] = dict(options)
    for key in ("transpose", "trim"):
        if key in options and options[key].lower() not in _TRUTH:
            raise DataError(f"DATASETS: {path}: {key} is {options[key]!r}; give 1 or 0")
        values[key] = _TRUTH[options.get(key, "0").lower()]
    if "frame_rate" in options:
        values["frame_rate"] = _frame_rate(path, options["frame_rate"])
    return SplitFile(path, **values)


def _frame_rate(path: str, value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise DataError(f"DATASETS: {path}: frame_rate is {value!r}; give frames per second")
    return rate


SPLIT_FORMAT = PathFormat(
    suffixes=(".bundle", ".train", ".test"),
    reader=_read_path,
    options=_OPTIONS,
    metadata={"evaluator": "action_segmentation"},
)
