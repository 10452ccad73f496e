"""Choosing gamma, the handicap of seen classes, on videos whose unseen classes are only pretended.

Chosen on the classes that are reported it would be tuned on the answers (Xian et al., TPAMI 2019):
classes held out of the seen ones stand in for the unseen ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidseg.collectives import gather
from vidseg.errors import ConfigError, DataError

from .class_split import ClassSplit
from .text_matching import ZeroShot
from .zero_shot import (
    FrameScores,
    encode_zero_shot,
    frame_scores,
    group_accuracy,
    harmonic_mean,
    stacking_curve,
)

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["Calibration"]

_logger = logging.getLogger(__name__)

Samples = Iterable[list[dict[str, Any]]]


@dataclass(frozen=True)
class Calibration:
    """On what gamma is chosen when training ends.

    Attributes:
        dataset: name of the data set.
        split: which classes are seen, unseen and pseudo-unseen.
        background: numbers of the background classes.
        videos: gives this rank's share of the videos, as samples for tests.
    """

    dataset: str
    split: ClassSplit
    background: tuple[int, ...]
    videos: Callable[[], Samples]

    @classmethod
    def from_config(
        cls, cfg: CfgNode, split: ClassSplit, background: Collection[int]
    ) -> Calibration | None:
        """Reads ``CLIP.calibration_set``; None if it names nothing.

        Raises:
            ConfigError: if no class is held out, or the run keeps averaged weights, which gamma
                would not be chosen for.
        """
        name = cfg.CLIP.calibration_set
        if not name:
            return None
        if not split.held_out:
            raise ConfigError(
                f"CLIP.calibration_set is {name}, but no class is held out to choose gamma on; set "
                "CLIP.pseudo_unseen"
            )
        if cfg.SOLVER.EMA.ENABLED:
            raise ConfigError(
                "CLIP.calibration_set chooses gamma for the weights of the last step, but "
                "SOLVER.EMA.ENABLED keeps averaged ones; switch one of them off"
            )
        if name in cfg.DATASETS.TEST:
            _logger.warning(
                "gamma is chosen on %s, which is in DATASETS.TEST: its H is no estimate of that on "
                "other videos",
                name,
            )

        def videos() -> Samples:
            from vidseg.data.loader import build_test_loader  # on demand: layers meet here only

            return build_test_loader(_testing(cfg, name), name)

        return cls(name, split, tuple(background), videos)

    @property
    def candidates(self) -> list[int]:
        """The seen classes and those whose place in the ranking is to be corrected."""
        return [
            number
            for number in range(len(self.split.classes))
            if number in self.target or number not in self.split.held_out
        ]

    @property
    def target(self) -> frozenset[int]:
        """The classes that stand for unseen ones: the pseudo-unseen, if there are any."""
        return frozenset(self.split.pseudo_unseen or self.split.unseen)

    def check(self) -> None:
        """Looks whether the videos show the classes, before hours of training show they do not.

        Raises:
            DataError: if the data set cannot be read, has no labels or shows none of the classes.
        """
        from vidseg.data import DatasetCatalog  # on demand, as above

        found: set[int] = set()
        for record in DatasetCatalog.get(self.dataset):
            found.update(record.get("labels", ()))
        if not found & self.target:
            names = ", ".join(self.split.classes[number] for number in sorted(self.target))
            raise DataError(
                f"CLIP.calibration_set {self.dataset} shows none of the classes that gamma is "
                f"chosen for ({names}); name other videos or other classes"
            )

    def choose(self, match: Callable[[dict[str, Any]], ZeroShot]) -> float:
        """Gives the gamma of the greatest H; every rank gets the same.

        Args:
            match: names the frames of a sample by the ``candidates``.
        """
        parts = []
        for samples in self.videos():
            for sample in samples:
                truth = sample.get("full_labels", sample.get("labels"))
                if truth is None:
                    raise DataError(
                        f"CLIP.calibration_set {self.dataset}: video {sample['video_id']} has no "
                        "labels to choose gamma by"
                    )
                encoded = encode_zero_shot(match(sample))
                parts.append(frame_scores(encoded, truth.numpy(), self.split.classes))
        frames = FrameScores.joined([part for found in gather(parts) for part in found])
        seen = set(self.candidates) - self.target - set(self.background)
        curve = stacking_curve(frames, seen, self.target)
        place = curve.best
        _logger.info(
            "gamma %.4f chosen on %s: H %.1f (seen %.1f, unseen %.1f); without: H %.1f",
            curve.gammas[place],
            self.dataset,
            curve.harmonic[place],
            curve.seen[place],
            curve.unseen[place],
            harmonic_at(frames, seen, self.target),
        )
        return float(curve.gammas[place])


def harmonic_at(
    frames: FrameScores, seen: Collection[int], unseen: Collection[int], gamma: float = 0.0
) -> float:
    """Gives H at one gamma."""
    labels = frames.labels_at(gamma)
    groups = [group_accuracy(frames.truth, labels, group) for group in (seen, unseen)]
    return float(harmonic_mean(*groups))


def _testing(cfg: CfgNode, name: str) -> CfgNode:
    """Gives a config whose only test set is the one that gamma is chosen on."""
    changed = cfg.clone()
    changed.defrost()
    changed.DATASETS.TEST = [name]
    changed.DATASETS.DATASET_TYPE_TEST = list(cfg.DATASETS.DATASET_TYPE[-1:])
    return changed
