"""DVIS-DAQ online: the frozen frame segmenter and the tracker, causal over a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.modeling.build import META_ARCH_REGISTRY
from vidseg.modeling.meta_arch import (
    ExportOptions,
    ExportPart,
    Recorder,
    ResultPlace,
    ResultSettings,
    SegmenterBase,
    VideoSession,
)

from .criterion import DAQCriterion
from .explanation import TrackingRecorder
from .exporting import tracker_part
from .memory import TrackRules
from .online_training import online_losses
from .sessions import OnlineSession, TrackingParts
from .settings import TrainingSettings
from .tracker import VideoInstanceCutter
from .warm_start import lacks_part, warm_start_tracker

__all__ = ["OnlineModel"]


@META_ARCH_REGISTRY.register(name="DVIS_DAQ_online")
class OnlineModel(SegmenterBase):
    """Tracks what the frame segmenter sees; only the tracker learns.

    Args:
        segmenter: arguments of :class:`~vidseg.modeling.meta_arch.base.SegmenterBase`.
        tracker: the network between frames.
        daq_criterion: its loss.
        rules: of births, visibility and ends, at inference.
        result_settings: what a prediction holds.
        training_settings: what the training step reads.

    Source: DVIS-DAQ (Zhou et al., 2024).
    """

    def __init__(
        self,
        segmenter: dict[str, Any],
        *,
        tracker: VideoInstanceCutter,
        daq_criterion: nn.Module,
        rules: TrackRules,
        result_settings: ResultSettings,
        training_settings: TrainingSettings,
    ) -> None:
        super().__init__(**segmenter)
        self.tracker = tracker
        self.daq_criterion = daq_criterion
        self.rules = rules
        self.result_settings = result_settings
        self.training_settings = training_settings
        for part in self.frozen_parts():
            part.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds the parts.

        Raises:
            UserError: if a part is unknown or two keys contradict.
        """
        return {
            # The tracker first: its checks of the config cost nothing.
            "tracker": VideoInstanceCutter(**VideoInstanceCutter.from_config(cfg)),
            "segmenter": cls.base_args(cfg),
            "daq_criterion": DAQCriterion(**DAQCriterion.from_config(cfg)),
            "rules": TrackRules(**TrackRules.from_config(cfg)),
            "result_settings": ResultSettings(**ResultSettings.from_config(cfg)),
            "training_settings": TrainingSettings(**TrainingSettings.from_config(cfg)),
        }

    def frozen_parts(self) -> list[nn.Module]:
        """Gives the parts that were trained before; they stay in eval mode."""
        return [self.backbone, self.sem_seg_head]

    def train(self, mode: bool = True) -> OnlineModel:
        """Switches the learning parts; frozen ones keep running as in evaluation."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def warm_start(self, missing: Sequence[str]) -> None:
        """Starts parts that the initial weights do not hold, where the settings say so.

        Args:
            missing: names of the parameters that no file gave.
        """
        if self.training_settings.tracker_warm_start and lacks_part("tracker", missing):
            predictor: Any = self.sem_seg_head.predictor
            warm_start_tracker(self.tracker, predictor)

    def losses(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Gives the weighted losses of a batch of clips."""
        return online_losses(self, samples)

    def session(self, place: ResultPlace) -> VideoSession:
        """Makes the session of one video; see the base class."""
        return OnlineSession(self.parts(), place)

    def recorder(self, session: Any) -> Recorder:
        """Gives what explains the results of a session of this model; see ``Recorder``."""
        return TrackingRecorder(self, self.tracker, session)

    def export_parts(self, options: ExportOptions) -> list[ExportPart]:
        """Gives the frame segmenter and the tracker's step."""
        return [*super().export_parts(options), tracker_part(self, options)]

    def parts(self) -> TrackingParts:
        """Gives what a session needs of the model."""
        predictor: Any = self.sem_seg_head.predictor
        return TrackingParts(
            segment=self.segment,
            tracker=self.tracker,
            query_table=predictor.query_feat.weight,
            rules=self.rules,
            settings=self.result_settings,
            window_size=self.window_size,
        )
