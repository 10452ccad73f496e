"""Training step of the tracker on frozen segmenter outputs.

The step has two phases. In the early one only the better half of the matched queries is carried
to the next frame, so that the anchors learn to find objects; in the late one everything that
looks like an object is carried, matched or not, and disappearances are simulated.

Shapes: T frames, Q frame queries, P live tracks, n queries of a frame (tracks, then anchors),
S slots, L layers, N objects, C channels, K classes, h w the mask features' size.

Source: DVIS-DAQ (Zhou et al., 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidseg.modeling.matcher import Pairs
from vidseg.modeling.transformer_decoder.masked import DecoderOutput

from .criterion import DAQCriterion, FramePrediction, foreground_pairs
from .matchers import FrameMatch, match_frames, match_new_instances
from .memory import foreground_score
from .positions import PositionMemory
from .settings import TrainingSettings
from .targets import ClipTargets, clip_targets
from .tracker import Frame, LiveTracks, VideoInstanceCutter

__all__ = ["Phase", "input_size", "mean_losses", "online_losses", "tracker_losses"]

Pick = Callable[[int], int]
"""Draws one of the numbers 0 to n-1."""


@dataclass(frozen=True)
class Phase:
    """What the position in the run decides.

    Args:
        is_late: whether the late phase has begun.
        num_frames: frames of the clip that are used at most; 0 for all.
    """

    is_late: bool
    num_frames: int

    @classmethod
    def at(cls, iteration: int, settings: TrainingSettings) -> Phase:
        """Gives the phase of an iteration of the run; without steps it is the late one."""
        is_late = not settings.phase_steps or iteration >= settings.phase_steps[0]
        frames = settings.frames_by_phase or (0,)
        return cls(is_late, frames[-1] if is_late else frames[0])


def online_losses(model: Any, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Gives the weighted losses of the tracker, averaged over the videos of the batch.

    Args:
        model: has ``segment``, ``tracker``, ``daq_criterion``, ``training_settings`` and
            ``sem_seg_head.predictor.query_feat``; everything but the tracker is frozen.
        samples: see the data room; ``sample["iteration"]`` is the position in the run.
    """
    losses = []
    for sample in samples:
        phase = Phase.at(sample.get("iteration", 0), model.training_settings)
        start, stop = _used_frames(len(sample["frames"]), phase.num_frames, pick_uniformly)
        with torch.no_grad():
            clip = model.segment(sample["frames"][start:stop].to(model.device))
        targets = clip_targets(
            sample["instances"].frames(start, stop),
            size=input_size(clip),
            device=clip.masks.device,
        )
        query_table = model.sem_seg_head.predictor.query_feat.weight.detach()
        losses.append(
            tracker_losses(
                model.tracker,
                model.daq_criterion,
                clip,
                targets,
                query_table,
                settings=model.training_settings,
                phase=phase,
            )
        )
    return mean_losses(losses)


def tracker_losses(
    tracker: VideoInstanceCutter,
    criterion: DAQCriterion,
    clip: DecoderOutput,
    targets: ClipTargets,
    query_table: Tensor,
    *,
    settings: TrainingSettings,
    phase: Phase,
    pick: Pick | None = None,
) -> dict[str, Tensor]:
    """Runs the tracker through a clip and scores it.

    Args:
        tracker: the network.
        criterion: its matcher serves all matchings of the step.
        clip: segmenter output of T frames, without graph.
        targets: objects of these frames.
        query_table: query features of the frame decoder, ``(Q, C)``.
        settings: thresholds.
        phase: where in the run this is.
        pick: draws the object whose disappearance is simulated; uniform by default.

    Returns:
        Losses of the tracker, and with prefix ``slot_`` of the slot branch, which has none in a
        clip of one frame, and is not run at all where its losses weigh nothing.
    """
    matches = match_frames(
        criterion.matcher,
        clip.logits,
        clip.masks,
        targets,
        valid_threshold=settings.first_threshold,
    )
    run = _ClipRun(tracker, criterion, targets, query_table, settings, phase, pick)
    projected = tracker.project(clip.mask_features)
    carried, predictions, slots = None, [], []
    for t, match in enumerate(matches):
        frame = Frame(clip.embeds[t], clip.mask_features[t], projected[t], clip.masks[t])
        if carried is None:
            prediction, carried = run.first(frame, match)
        else:
            prediction, slot, carried = run.next(t, frame, match, carried)
            if slot is not None:
                slots.append(slot)
        predictions.append(prediction)
    losses = criterion(predictions, targets)
    if slots:
        weight = settings.slot_loss_weight
        slot_losses = criterion(slots, targets)
        losses |= {f"slot_{name}": weight * value for name, value in slot_losses.items()}
    return losses


def input_size(clip: DecoderOutput) -> tuple[int, int]:
    """Gives height and width of the padded frames, four times those of the masks."""
    height, width = clip.masks.shape[-2:]
    return 4 * height, 4 * width


def mean_losses(losses: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Averages the losses of several videos; one that a video does not have counts as 0."""
    names = dict.fromkeys(name for video in losses for name in video)
    means = {}
    for name in names:
        values = [video[name] for video in losses if name in video]
        means[name] = torch.stack(values).sum() / len(losses)
    return means


@dataclass
class _Carried:
    """Queries that go on to the next frame; ``objects`` (P,) are theirs, -1 for none."""

    embeds: Tensor
    positions: PositionMemory
    objects: Tensor

    @property
    def pairs(self) -> Pairs:
        rows = (self.objects >= 0).nonzero()[:, 0]
        return rows, self.objects[rows]

    @property
    def live(self) -> LiveTracks:
        return LiveTracks(self.embeds, self.positions.positions)


@dataclass
class _ClipRun:
    """What stays the same over the frames of a clip."""

    tracker: VideoInstanceCutter
    criterion: DAQCriterion
    targets: ClipTargets
    query_table: Tensor
    settings: TrainingSettings
    phase: Phase
    pick: Pick | None

    def first(self, frame: Frame, match: FrameMatch) -> tuple[FramePrediction, _Carried]:
        """Runs the frame queries of the first frame; the pairs are those of the frame matcher."""
        layers = self.tracker.first_frame(frame)  # (L+1, Q, C)
        logits = self.tracker.classify(layers)
        prediction = self._predict(0, frame, layers, logits, match.pairs)
        positions = PositionMemory.empty(0, layers.shape[-1], layers.device)
        carried = self._carry(frame, layers[-1], logits[-1], match.pairs, positions)
        return prediction, carried

    def next(
        self, t: int, frame: Frame, match: FrameMatch, carried: _Carried
    ) -> tuple[FramePrediction, FramePrediction | None, _Carried]:
        """Runs the tracks and the anchors, and the slots of the tracks."""
        layers = self.tracker.next_frame(frame, carried.live)  # (L+1, P+Q, C)
        num_tracks, tracked = len(carried.objects), carried.pairs
        logits = self.tracker.classify(layers)
        with torch.no_grad():
            masks = self.tracker.segment(layers[-1, num_tracks:], frame.projected)
        pairs = match_new_instances(
            self.criterion.matcher, logits[-1], masks, self.targets, t, tracked=tracked
        )
        hidden_object = self._hidden_object(tracked, match)
        # The published code shares the list of objects that are gone between tracker and slots
        # if there is any: only then does the tracker, too, treat the hidden object as gone.
        any_gone = not bool(self.targets.visible[tracked[1], t].all())
        gone = hidden_object if any_gone else []
        prediction = self._predict(t, frame, layers, logits, pairs, gone=gone)
        slot = None
        if self.settings.slot_loss_weight > 0:
            slot = self._slots(t, frame, match, carried, hidden_object)
        positions = carried.positions
        after = self._carry(frame, layers[-1], logits[-1], pairs, positions)
        return prediction, slot, after

    def _slots(
        self,
        t: int,
        frame: Frame,
        match: FrameMatch,
        carried: _Carried,
        hidden_object: Sequence[int],
    ) -> FramePrediction:
        """Asks the slot branch which of the tracked objects are still there."""
        hidden = None
        if hidden_object:
            hidden = (match.nearest == hidden_object[0]).to(frame.embeds.device)
        slots = self.tracker.slots(frame, carried.live, self.query_table, hidden=hidden)
        logits = self.tracker.classify(slots)
        return self._predict(t, frame, slots, logits, carried.pairs, gone=hidden_object)

    def _predict(
        self,
        t: int,
        frame: Frame,
        layers: Tensor,
        logits: Tensor,
        pairs: Pairs,
        *,
        gone: Sequence[int] = (),
    ) -> FramePrediction:
        """Makes the masks of the foreground pairs, in all layers; others have no mask loss."""
        foreground = foreground_pairs(pairs, self.targets, t, gone=gone)
        rows = foreground[0].to(layers.device)
        masks = self.tracker.segment(layers[:, rows], frame.projected)
        return FramePrediction(t, logits, masks, foreground, len(pairs[0]))

    def _hidden_object(self, tracked: Pairs, match: FrameMatch) -> list[int]:
        """Picks the object whose disappearance is simulated: one, or none."""
        if not self.phase.is_late or len(tracked[1]) <= 3:
            return []
        chosen = int(tracked[1][(self.pick or pick_uniformly)(len(tracked[1]))])
        # Slots that see no query at all would have nothing to attend to.
        return [] if bool((match.nearest == chosen).all()) else [chosen]

    def _carry(
        self,
        frame: Frame,
        queries: Tensor,
        logits: Tensor,
        pairs: Pairs,
        positions: PositionMemory,
    ) -> _Carried:
        """Selects the queries that go on and updates their positions.

        Args:
            frame: the current frame.
            queries: last layer's output, ``(n, C)``.
            logits: their class logits.
            pairs: of this frame.
            positions: of the n - Q tracks that came in; new rows start empty.
        """
        scores = foreground_score(logits.detach()).cpu()
        if self.phase.is_late:
            rows = (scores > self.settings.select_threshold).nonzero()[:, 0]
        else:
            num_kept = len(pairs[0]) - len(pairs[0]) // 2
            rows = pairs[0][scores[pairs[0]].topk(num_kept).indices].sort().values
        objects = torch.full((len(scores),), -1)
        objects[pairs[0]] = pairs[1]
        on_device = rows.to(queries.device)
        kept = queries[on_device]
        with torch.no_grad():
            masks = self.tracker.segment(kept, frame.projected)
        codes = self.tracker.mask_position(masks, frame.mask_features)
        num_new = len(scores) - len(positions.counts)
        memory = positions.append(num_new).rows(on_device)
        memory = memory.update(codes, torch.ones_like(on_device, dtype=torch.bool))
        return _Carried(kept, memory, objects[rows])


def pick_uniformly(num: int) -> int:
    """Draws one of the numbers 0 to ``num`` - 1 from torch's random stream."""
    return int(torch.randint(num, ()))


def _used_frames(length: int, wanted: int, pick: Pick) -> tuple[int, int]:
    """Chooses the part of a clip that is used: start and stop.

    Note:
        The published code draws the start from 0 to ``wanted`` - 1, whatever the clip's length,
        and moves a part that would run over the end back.
    """
    if not 0 < wanted < length:
        return 0, length
    start = min(pick(wanted), length - wanted)
    return start, start + wanted
