"""FACT_CLIP: FACT whose frames are aligned with text, so that classes without videos have names.

Shapes: T frames, D input width, H feature width, C classes, K candidates, E text width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.modeling import META_ARCH_REGISTRY

from .alignment import TextAlignment
from .alignment_settings import AlignmentSettings
from .background import background_classes
from .blocks import BlockOutput
from .calibration import Calibration
from .class_split import ClassSplit
from .model import FACT
from .prediction import ActionPrediction
from .samples import IGNORED, Sample
from .segmenter import Batches, VideoRun
from .text import TextSettings, embed_names
from .text_matching import ZeroShot

__all__ = ["FACT_CLIP"]


@META_ARCH_REGISTRY.register()
class FACT_CLIP(FACT):
    """``FACT`` with a contrastive loss between frames and texts, and labels by text.

    Frames of held-out classes (``CLIP.unseen``, ``CLIP.pseudo_unseen``) count as unlabelled in
    training, and the closed set leaves these classes out. Predictions have ``zero_shot``.

    Args:
        cfg: as ``FACT``, and ``CLIP``.
        input_dim: D.
        n_classes: C, background included.
        classes: names of the classes; if they are not known, their numbers.

    Raises:
        UserError: if values contradict each other, or the texts cannot be had.
    """

    def __init__(
        self, cfg: CfgNode, input_dim: int, n_classes: int, *, classes: Sequence[str] = ()
    ) -> None:
        super().__init__(cfg, input_dim, n_classes, classes=classes)
        self.alignment: TextAlignment | None = None
        self.calibration: Calibration | None = None
        self._is_checked = False
        if not cfg.CLIP.enable:
            return
        names = list(classes) or [str(number) for number in range(n_classes)]
        background = background_classes(cfg.bg_class, names)
        split = ClassSplit.from_config(cfg, names, background)
        settings = AlignmentSettings.from_config(cfg, len(self.settings.blocks))
        self.text_settings = TextSettings.from_config(cfg)
        self._num_closed = n_classes if settings.feature == "frame_noprob" else 0
        self.alignment = TextAlignment(
            settings,
            [self.settings.blocks[b].hid_dim - self._num_closed for b in settings.blocks],
            torch.from_numpy(embed_names(self.text_settings, names)),
            split,
            background,
        )
        self.calibration = Calibration.from_config(cfg, split, background)
        if split.held_out:
            known = torch.tensor([number not in split.held_out for number in range(n_classes)])
            self.head.class_mask = known

    @property
    def text_embeddings(self) -> Tensor:
        """``(K, E)`` unit vectors of the vocabulary."""
        return self._aligned().text_embeddings

    def set_text_embeddings(self, new: Tensor, names: Sequence[str] | None = None) -> None:
        """Swaps the vocabulary after training; see ``TextAlignment``.

        Args:
            new: ``(K, E)``, of any length.
            names: K of them; may be left out if there are as many as before.

        Raises:
            ValueError: if the shape or the number of names does not fit.
        """
        self._aligned().set_text_embeddings(new, names)

    def set_vocabulary(self, names: Sequence[str]) -> None:
        """Lets frames be named by other classes, known by their names alone.

        A name that reads like a training class (``take cup`` for ``take_cup``) is that class.

        Raises:
            UserError: if the text provider of the config has no embeddings for them, two are one
                class, or alignment is switched off.
        """
        if self.alignment is None:
            raise ConfigError("CLIP.enable is off: this model knows no texts, so no other classes")
        phrase = self.text_settings.prompts.phrase
        trained = {phrase(name): name for name in self.alignment.split.classes}
        names = [trained.get(phrase(name), name) for name in names]
        embeddings = torch.from_numpy(embed_names(self.text_settings, names))
        self.set_text_embeddings(embeddings, names)

    @torch.no_grad()
    def eval_with_clip(
        self,
        x: Tensor | Sample,
        candidates: Sequence[int | str] | None = None,
        seen_mask: Tensor | None = None,
        gamma: float | None = None,
        smoothing: str | None = None,
    ) -> ZeroShot:
        """Names the frames of a video by cosine similarity to texts.

        Args:
            x: features ``(T, D)``, or a sample that has them.
            candidates: names or numbers of the vocabulary; None for all of it.
            seen_mask: ``(K,)`` bool, whose cosines gamma is subtracted from (calibrated stacking);
                None: the classes whose labels training sees.
            gamma: None for the model's, see ``CLIP.gamma``.
            smoothing: ``none``, ``segments``, ``median`` or ``viterbi``; None as configured.

        Raises:
            ValueError: if a candidate is not in the vocabulary or the mask does not fit.
            DataError: if the features cannot be used.
        """
        sample: Sample = {"features": x} if isinstance(x, Tensor) else x
        was_training = self.training
        self.eval()
        try:
            blocks, transcript = self.run_sample(sample)
            closed = super().predict_video(sample, blocks, transcript)
        finally:
            self.train(was_training)
        return self._aligned().match(
            self._features_of(blocks)[-1],
            candidates,
            seen_mask,
            gamma=gamma,
            smoothing=smoothing,
            runs=closed.labels,
        )

    def read_labels(self, sample: Sample) -> Tensor | None:
        """As the base; frames of held-out classes have no label."""
        labels = super().read_labels(sample)
        if labels is None or self.alignment is None:
            return labels
        held_out = torch.tensor(sorted(self.alignment.split.held_out), dtype=labels.dtype)
        return labels.masked_fill(torch.isin(labels, held_out), IGNORED)

    def extra_losses(self, runs: list[VideoRun]) -> dict[str, Tensor]:
        """Gives the contrastive loss of all frames of the batch."""
        if self.alignment is None:
            return {}
        features = zip(
            *([x[run.targets.frames] for x in self._features_of(run.blocks)] for run in runs),
            strict=True,
        )
        labels = torch.cat([run.targets.labels for run in runs])
        loss = self.alignment.loss([torch.cat(parts) for parts in features], labels)
        return {"loss_contrastive": loss}

    def predict_video(
        self, sample: Sample, blocks: list[BlockOutput], transcript: Tensor | None
    ) -> ActionPrediction:
        """As the base, with the labels by text."""
        prediction = super().predict_video(sample, blocks, transcript)
        if self.alignment is not None:
            features = self._features_of(blocks)[-1]
            prediction.zero_shot = self.alignment.match(features, runs=prediction.labels)
        return prediction

    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """As the base; chooses gamma after the last step, if ``CLIP.calibration_set`` is given."""
        if self.calibration is not None and not self._is_checked:
            self.calibration.check()
            self._is_checked = True
        is_refitted = super().at_iteration(iteration, max_iter, lambda: self._trained_on(batches()))
        if self.calibration is None or self.alignment is None:
            return is_refitted
        if iteration == max_iter:
            candidates = self.calibration.candidates
            gamma = self.calibration.choose(
                lambda sample: self.eval_with_clip(sample, candidates, gamma=0.0)
            )
            self.alignment.chosen_gamma.fill_(gamma)
        return is_refitted

    def _trained_on(self, batches: Iterable[list[Sample]]) -> Iterable[list[Sample]]:
        """Leaves out the videos that training leaves out (``CLIP.unseen_mode: drop``)."""
        held_out: frozenset[int] = frozenset()
        if self.alignment is not None and self.alignment.settings.unseen_mode == "drop":
            held_out = self.alignment.split.held_out
        if not held_out:
            return batches
        return (
            [one for one in some if held_out.isdisjoint(one["labels"].tolist())] for some in batches
        )

    def _aligned(self) -> TextAlignment:
        if self.alignment is None:
            raise ValueError("CLIP.enable is off: this model knows no texts")
        return self.alignment

    def _features_of(self, blocks: list[BlockOutput]) -> list[Tensor]:
        """Gives the features ``(T, width)`` of the aligned blocks."""
        assert self.alignment is not None
        features = [blocks[number].frame_features for number in self.alignment.settings.blocks]
        return [x[:, : x.shape[1] - self._num_closed] for x in features]
