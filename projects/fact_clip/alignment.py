"""Frame features brought to the texts of classes: what ``FACT_CLIP`` adds to ``FACT``.

Shapes: T frames, N frames of a batch, C classes, K candidates, E width of the text embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .alignment_settings import AlignmentSettings
from .class_split import ClassSplit
from .contrast import ContrastiveLoss
from .projection import FeatureProjection
from .text_matching import ZeroShot, match_texts

__all__ = ["TextAlignment"]


class TextAlignment(nn.Module):
    """Projections of the aligned blocks, texts of the vocabulary and gamma.

    The texts are no part of the checkpoint: the config says where they come from.

    Args:
        settings: how.
        input_dims: width of the features of each aligned block.
        text_embeddings: ``(C, E)`` of the classes, of any length.
        split: names of the classes, and which are held out.
        background: numbers of the background classes.
    """

    text_embeddings: Tensor
    training_classes: Tensor
    chosen_gamma: Tensor

    def __init__(
        self,
        settings: AlignmentSettings,
        input_dims: Sequence[int],
        text_embeddings: Tensor,
        split: ClassSplit,
        background: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.settings = settings
        self.split = split
        self.embed_dim = text_embeddings.shape[1]
        self.projections = nn.ModuleList(
            FeatureProjection(
                width,
                self.embed_dim,
                hidden_dim=settings.proj_hidden,
                dropout=settings.proj_dropout,
            )
            for width in input_dims
        )
        self.contrast = ContrastiveLoss(
            settings.temperature,
            is_learnt=settings.learn_temperature,
            t2v_mode=settings.t2v_mode,
        )
        left_out = set(background) if settings.ignore_bg else set()
        trained = set(range(len(split.classes))) - split.held_out - left_out
        self.register_buffer("training_classes", torch.tensor(sorted(trained)), persistent=False)
        self.register_buffer("chosen_gamma", torch.tensor(math.nan))
        self.register_buffer("text_embeddings", torch.empty(0), persistent=False)
        self.names: list[str] = []
        self._baseline: list[FeatureProjection] = []
        self.set_text_embeddings(text_embeddings, split.classes)

    @property
    def gamma(self) -> float:
        """What seen classes must be better by: as configured, else as chosen, else 0."""
        if self.settings.gamma is not None:
            return self.settings.gamma
        chosen = float(self.chosen_gamma)
        return 0.0 if math.isnan(chosen) else chosen

    @property
    def seen(self) -> Tensor:
        """Whether training sees labels of each name of the vocabulary, bool on the CPU."""
        return torch.tensor([self.split.is_seen(name) for name in self.names], dtype=torch.bool)

    def set_text_embeddings(self, new: Tensor, names: Sequence[str] | None = None) -> None:
        """Swaps the vocabulary.

        Args:
            new: ``(K, E)``, of any length.
            names: K of them; may be left out if there are as many as before.

        Raises:
            ValueError: if the shape or the number of names does not fit.
        """
        if new.dim() != 2 or new.shape[1] != self.embed_dim or not len(new):
            raise ValueError(
                f"text embeddings have the shape {tuple(new.shape)}, expected (classes, "
                f"{self.embed_dim})"
            )
        names = list(self.names if names is None else names)
        if len(names) != len(new):
            raise ValueError(f"{len(names)} names do not fit {len(new)} text embeddings")
        unit = F.normalize(new.detach().float(), dim=-1, eps=1e-12)
        self.text_embeddings = unit.to(self.chosen_gamma.device)
        self.names = names

    def loss(self, features: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Gives the weighted contrastive loss, the mean over the aligned blocks.

        Args:
            features: ``(N, width)`` of each aligned block.
            labels: ``(N,)`` int64, negative: ignored.

        Raises:
            ValueError: if the vocabulary is no longer that of the labels.
        """
        if self.names != list(self.split.classes):
            raise ValueError(
                "the vocabulary was swapped, so labels have no texts; set that of the training "
                "classes again"
            )
        losses = [
            self.contrast(projection(x), self.text_embeddings, labels, self.training_classes)
            for projection, x in zip(self.projections, features, strict=True)
        ]
        return self.settings.weight * torch.stack(losses).mean()

    @torch.no_grad()
    def match(
        self,
        features: Tensor,
        candidates: Sequence[int | str] | None = None,
        seen_mask: Tensor | None = None,
        *,
        gamma: float | None = None,
        smoothing: str | None = None,
        runs: Tensor | None = None,
    ) -> ZeroShot:
        """Names frames by text.

        Args:
            features: ``(T, width)`` of the last aligned block.
            candidates: names or numbers of the vocabulary; None for all of it.
            seen_mask: ``(K,)`` bool, whose cosines gamma is subtracted from; None: the classes that
                training sees.
            gamma: None for the model's.
            smoothing: see ``match_texts``; None for that of the settings.
            runs: ``(T,)`` labels for smoothing by segments.

        Raises:
            ValueError: if a candidate is not in the vocabulary or the mask does not fit.
        """
        numbers = self._numbers(candidates)
        seen = self.seen[numbers] if seen_mask is None else seen_mask.bool().cpu()
        if len(seen) != len(numbers):
            raise ValueError(f"seen_mask has {len(seen)} values for {len(numbers)} candidates")
        texts = self.text_embeddings[numbers]
        found = match_texts(
            self.projections[-1](features),
            texts,
            [self.names[number] for number in numbers],
            seen,
            gamma=self.gamma if gamma is None else gamma,
            temperature=float(self.contrast.temperature),
            smoothing=self.settings.smoothing if smoothing is None else smoothing,
            min_duration=self.settings.min_duration,
            runs=runs,
        )
        if bool(seen.all()) or not bool(seen.any()):
            return found
        untrained = self._untrained(features)(features.float()) @ texts.t()
        return replace(found, untrained=untrained.cpu())

    def _untrained(self, features: Tensor) -> FeatureProjection:
        """Gives a projection as training would start from; no part of the checkpoint."""
        if not self._baseline:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                fresh = FeatureProjection(
                    features.shape[1], self.embed_dim, hidden_dim=self.settings.proj_hidden
                )
            self._baseline.append(fresh.eval())
        return self._baseline[0].to(features.device)

    def _numbers(self, candidates: Sequence[int | str] | None) -> list[int]:
        if candidates is None:
            return list(range(len(self.names)))
        numbers = []
        for one in candidates:
            if isinstance(one, str):
                if one not in self.names:
                    raise ValueError(f"candidate {one!r} is not in the vocabulary")
                numbers.append(self.names.index(one))
            elif 0 <= int(one) < len(self.names):
                numbers.append(int(one))
            else:
                raise ValueError(f"candidate {one} is not one of the {len(self.names)} classes")
        return numbers
