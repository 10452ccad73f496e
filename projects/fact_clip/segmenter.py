"""From samples of videos to losses and predictions, for every network with FACT's blocks.

Shapes: T frames, D input width, S segments, M tokens, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.data import DatasetCatalog
from vidseg.errors import ConfigError, DataError
from vidseg.layers.standardisation import Standardisation

from .blocks import BlockOutput
from .criterion import MatchCriterion
from .network import FactNetwork
from .null_weight import TokenDemand, tokens_needed
from .prediction import ActionPrediction, predict
from .samples import Sample, naming_video, read_features, read_labels
from .settings import FactSettings
from .targets import VideoTargets

__all__ = ["ActionSegmenter", "VideoRun"]

logger = logging.getLogger(__name__)

Batches = Callable[[], Iterable[list[Sample]]]


@dataclass(frozen=True)
class VideoRun:
    """One video of a training step.

    Args:
        sample: as it came.
        blocks: what every block gave.
        targets: what its losses refer to.
    """

    sample: Sample
    blocks: list[BlockOutput]
    targets: VideoTargets


class ActionSegmenter(FactNetwork):
    """A FACT network that takes samples: losses in training, predictions in eval.

    Videos are computed one by one: a batch may hold any lengths, and each has what it has alone.
    ``SOLVER.ACCUMULATION_STEPS`` set to the batch size frees the memory of each before the next.
    A run from a config fits the scale of the features and the weight of the null class by
    :meth:`at_iteration`. Another training loop needs neither: features are then taken as they are,
    and each video weighs the null class by its own segments.

    A variant overrides ``build_head``, ``build_embedding`` and ``embed`` of the network, passes its
    own criterion, or overrides :meth:`read_labels`, :meth:`extra_losses` and
    :meth:`predict_video`.

    Args:
        settings: of the network.
        input_dim: D.
        n_classes: C, background included.
        criterion: matches and scores.
        classes: names of the classes, if they are known.
        standardize: whether features are brought to mean 0 and variance 1 over the training set.
        mean_matched: tokens that a training video needs on average, for the weight of the null
            class; 0 if it is to be counted.

    Raises:
        ConfigError: if ``mean_matched`` is negative.
    """

    feature_dim_key = "FACT.input_dim"

    def __init__(
        self,
        settings: FactSettings,
        input_dim: int,
        n_classes: int,
        *,
        criterion: MatchCriterion,
        classes: Sequence[str] = (),
        standardize: bool = False,
        mean_matched: float = 0.0,
    ) -> None:
        super().__init__(settings, input_dim, n_classes)
        self.classes = list(classes)
        self.criterion = criterion
        # Without it the state dict is that of the published code.
        self.standardisation = Standardisation(input_dim) if standardize else None
        if mean_matched < 0:
            raise ConfigError(f"average_transcript_len is {mean_matched}; give 0 to count, or more")
        if criterion.null_weight is None and settings.trans:
            criterion.null_weight = 0.0  # every token is a segment
        elif criterion.null_weight is None and mean_matched:
            criterion.set_mean_matched(settings.ntoken, mean_matched)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Gives the config, with the width and the classes that it names or the training set has.

        Raises:
            ConfigError: if it names a negative number.
            DataError: if the training set is needed for them and is not there.
        """
        input_dim, n_classes = cfg.FACT.input_dim, cfg.FACT.n_classes
        for key, value in (("input_dim", input_dim), ("n_classes", n_classes)):
            if value < 0:
                raise ConfigError(f"FACT.{key} is {value}; give 0 for that of the training set")
        names = cfg.DATASETS.TRAIN
        try:
            known = DatasetCatalog.metadata(names[-1]) if names else None
        except DataError as error:
            if not input_dim or not n_classes:
                raise DataError(
                    f"{error}; without the training set, set FACT.input_dim and FACT.n_classes"
                ) from error
            known = None
        classes = known.classes if known is not None else []
        input_dim = input_dim or (known.feature_dim if known is not None else 0)
        n_classes = n_classes or len(classes)
        for key, value in (("input_dim", input_dim), ("n_classes", n_classes)):
            if not value:
                source = f"{names[-1]} does not tell it" if names else "DATASETS.TRAIN is empty"
                raise DataError(f"FACT.{key} is 0, the one of the training set, but {source}")
        return {
            "cfg": cfg,
            "input_dim": input_dim,
            "n_classes": n_classes,
            "classes": classes if len(classes) == n_classes else [],
        }

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def is_fitted(self) -> bool:
        """Whether the weight of the null class is known; a checkpoint does not hold it."""
        return self.criterion.null_weight is not None

    def forward(self, samples: list[Sample]) -> Any:
        """Gives losses in training and predictions in eval.

        Args:
            samples: with ``features`` ``(T, D)``; ``labels`` ``(T,)`` in training, and in eval too
                if the transcript is an input.

        Returns:
            In training the losses by name, weighted: means over the videos, and of most losses over
            the blocks. In eval one ``ActionPrediction`` per sample.

        Raises:
            DataError: if a video cannot be used; names it.
        """
        if not self.training:
            return [self._predict(sample) for sample in samples]
        runs = [self._run(sample) for sample in samples]
        losses: dict[str, Tensor] = {}
        for run in runs:
            for name, value in self.criterion(run.blocks, run.targets).items():
                losses[name] = losses.get(name, 0) + value / len(runs)
        return {**losses, **self.extra_losses(runs)}

    def read_labels(self, sample: Sample) -> Tensor | None:
        """Gives the labels ``(T,)`` of a sample, negative where there is none; None without any."""
        return read_labels(sample, len(sample["features"]), self.n_classes)

    def extra_losses(self, runs: list[VideoRun]) -> dict[str, Tensor]:
        """Gives weighted losses of a batch beyond those of the criterion."""
        return {}

    def run_sample(self, sample: Sample) -> tuple[list[BlockOutput], Tensor | None]:
        """Gives what every block gives of a video, and the transcript if it is an input.

        Raises:
            DataError: if the video cannot be used; names it.
        """
        transcript = None
        with naming_video(sample):
            features = self._features(sample)
            if self.settings.trans:
                labels = self.read_labels(sample)
                if labels is None:
                    raise ValueError("FACT.trans is on: labels are needed, as the transcript")
                transcript = VideoTargets.of(labels.to(self.device)).transcript
            return self.run_blocks(features, transcript), transcript

    def predict_video(
        self, sample: Sample, blocks: list[BlockOutput], transcript: Tensor | None
    ) -> ActionPrediction:
        """Gives the prediction for a video.

        Args:
            sample: as it came.
            blocks: what every block gave.
            transcript: ``(S,)`` int64, if it was an input.
        """
        return predict(blocks[-1], self.settings.mwt, transcript)

    def write_prediction(self, folder: Path, sample: Sample, prediction: ActionPrediction) -> str:
        """Writes what shows a prediction, ``timeline.png`` and ``segments.csv``.

        Returns:
            What was found, for the reader of a command's output.
        """
        from .view import write_view

        names = self.classes or [f"class {number}" for number in range(self.n_classes)]
        return write_view(folder, sample, prediction, names, self.criterion.bg_class)

    @torch.no_grad()
    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Fits scale and weight of the null class where they are not known.

        Returns:
            Whether the scale was fitted.
        """
        is_unscaled = self.standardisation is not None and not self.standardisation.is_fitted
        if iteration == max_iter or (self.is_fitted and not is_unscaled):
            return False
        needs: list[int] = []
        if is_unscaled:
            assert self.standardisation is not None
            self.standardisation.fit(self._documents(batches, needs))
        else:
            for _ in self._documents(batches, needs):
                pass
        if not self.settings.trans:
            self._fit_null_weight(needs)
        return is_unscaled

    def _run(self, sample: Sample) -> VideoRun:
        with naming_video(sample):
            features = self._features(sample)
            labels = self.read_labels(sample)
            if labels is None:
                raise ValueError("there are no labels to train on")
            targets = VideoTargets.of(labels.to(self.device))
            transcript = targets.transcript if self.settings.trans else None
            if transcript is not None and not len(transcript):
                # Any token will do: no loss asks anything of it.
                transcript = transcript.new_zeros(1)
            return VideoRun(sample, self.run_blocks(features, transcript), targets)

    @torch.no_grad()
    def _predict(self, sample: Sample) -> ActionPrediction:
        blocks, transcript = self.run_sample(sample)
        return self.predict_video(sample, blocks, transcript)

    def _features(self, sample: Sample) -> Tensor:
        features = read_features(sample, self.input_dim)
        features = features.to(self.device, next(self.parameters()).dtype)
        if self.standardisation is None:
            return features
        mask = sample.get("mask")
        return self.standardisation(features, None if mask is None else mask.to(self.device))

    def _documents(
        self, batches: Batches, needs: list[int]
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Gives features and mask of each training video, and notes the tokens that it needs."""
        match = self.criterion.settings.match
        for samples in batches():
            for sample in samples:
                with naming_video(sample):
                    features = read_features(sample, self.input_dim)
                    labels = self.read_labels(sample)
                if labels is not None:
                    needs.append(tokens_needed(VideoTargets.of(labels), match))
                yield features, sample.get("mask")

    def _fit_null_weight(self, needs: list[int]) -> None:
        num_tokens = self.settings.ntoken
        demand = TokenDemand.over_ranks(needs, num_tokens)
        if not self.is_fitted:
            self.criterion.set_mean_matched(num_tokens, demand.mean)
            logger.info(
                "%d training videos need %.1f tokens on average, %d at most: null weight %.3g",
                demand.num_videos,
                demand.mean,
                demand.largest,
                self.criterion.null_weight,
            )
        if demand.num_beyond:
            self.criterion.has_warned = True
            logger.warning(
                "%d of %d training videos need more than the %d action tokens: what is beyond "
                "teaches no token; set FACT.ntoken to %d or more",
                demand.num_beyond,
                demand.num_videos,
                num_tokens,
                demand.largest,
            )
