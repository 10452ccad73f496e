"""DVIS-DAQ offline: the online model, frozen, and the temporal refiner over the whole video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError
from vidseg.modeling.build import META_ARCH_REGISTRY
from vidseg.modeling.criterion import SetCriterion
from vidseg.modeling.meta_arch import (
    ExportOptions,
    ExportPart,
    Recorder,
    ResultPlace,
    VideoSession,
)

from .explanation import RefiningRecorder
from .offline_training import offline_losses
from .online import OnlineModel
from .refiner import TemporalRefiner
from .refining import OfflineSession
from .warm_start import lacks_part, warm_start_refiner

__all__ = ["OfflineModel"]


@META_ARCH_REGISTRY.register(name="DVIS_DAQ_offline")
class OfflineModel(OnlineModel):
    """Refines the tracks of the online model; only the refiner learns.

    Args:
        refiner: the network over the whole video.
        online: arguments of :class:`OnlineModel`.
        memory_mb: MiB of a video's frames that a session keeps in memory; more go to a file.

    Source: DVIS-DAQ (Zhou et al., 2024); refiner of DVIS (Zhang et al., ICCV 2023).
    """

    def __init__(
        self, refiner: TemporalRefiner, online: dict[str, Any], *, memory_mb: float = 64
    ) -> None:
        super().__init__(**online)
        self.refiner = refiner
        self.memory_mb = memory_mb

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds the parts.

        Raises:
            UserError: if a part is unknown or two keys contradict.
        """
        memory_mb = cfg.MODEL.REFINER.MEMORY_MB
        if memory_mb < 0:
            raise ConfigError(f"MODEL.REFINER.MEMORY_MB is {memory_mb}; set 0 or more MiB")
        online = super().from_config(cfg)
        # A clip is one tall map, so it has the points of all its frames.
        num_frames = cfg.INPUT.SAMPLING_FRAME_NUM
        criterion = SetCriterion.from_config(cfg, points_per_frame=num_frames)
        online["daq_criterion"] = SetCriterion(**criterion)
        refiner = TemporalRefiner(**TemporalRefiner.from_config(cfg))
        return {"refiner": refiner, "online": online, "memory_mb": memory_mb}

    def frozen_parts(self) -> list[nn.Module]:
        """Gives the parts that were trained before, now with the tracker."""
        return [*super().frozen_parts(), self.tracker]

    def warm_start(self, missing: Sequence[str]) -> None:
        """Starts parts that the initial weights do not hold; see the base class."""
        super().warm_start(missing)
        if self.training_settings.refiner_warm_start and lacks_part("refiner", missing):
            warm_start_refiner(self.refiner, self.tracker)

    def losses(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Gives the weighted losses of a batch of clips."""
        return offline_losses(self, samples)

    def session(self, place: ResultPlace) -> VideoSession:
        """Makes the session of one video; see the base class."""
        wanted = self.training_settings.refiner_input
        return OfflineSession(self.parts(), self.refiner, wanted, place, memory_mb=self.memory_mb)

    def export_parts(self, options: ExportOptions) -> list[ExportPart]:
        """Refuses: the refiner is no step over one frame.

        Raises:
            UserError: with the way to the online part.
        """
        raise UserError(
            "the offline model refines whole videos, which no graph of single frames can; export"
            " the online model inside: the same weights with MODEL.META_ARCHITECTURE"
            " DVIS_DAQ_online"
        )

    def recorder(self, session: Any) -> Recorder:
        """Gives what explains the results of a session of this model; see ``Recorder``."""
        return RefiningRecorder(self, self.tracker, self.refiner, session)
