"""FACT with verbs and nouns by themselves, for classes that are pairs of both (Epic-Kitchens).

A pair has the probability of its verb times that of its noun. Only listed pairs are classes, so
their probabilities do not add up to 1. Logits of this network are log-probabilities of pairs.

Source: FACT (Lu and Elhamifar, CVPR 2024), published code for Epic-Kitchens.
Shapes: M tokens, S true segments, R rows (frames, segments or tokens), H feature width, A token
width, C classes, V verbs, N nouns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.modeling import META_ARCH_REGISTRY

from .background import background_classes
from .blocks import BlockOutput
from .criterion import BlockTensors, LossSettings, MatchCriterion
from .heads import ClassHead
from .losses import frame_loss, smooth_loss
from .matching import Match
from .prediction import ActionPrediction, merge_branches, merge_with_transcript
from .samples import Sample
from .segmenter import ActionSegmenter
from .settings import settings_of
from .targets import FrameRows, VideoTargets
from .verb_noun_pairs import VerbNounPairs, read_pairs

__all__ = ["FACTVerbNoun", "VerbNounCriterion", "VerbNounHead"]


class VerbNounHead(ClassHead):
    """Reads the last V + N channels of features as logits of verbs, then of nouns.

    Those of tokens have one more of each: no verb, no noun; together they are the null class.

    Args:
        pairs: the classes.
    """

    verbs: Tensor
    nouns: Tensor

    def __init__(self, pairs: VerbNounPairs) -> None:
        super().__init__(len(pairs))
        self.num_verbs, self.num_nouns = pairs.num_verbs, pairs.num_nouns
        self.register_buffer("verbs", torch.tensor(pairs.verbs), persistent=False)
        self.register_buffer("nouns", torch.tensor(pairs.nouns), persistent=False)

    def frames(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the log-probabilities of frames or segments.

        Args:
            features: ``(R, H)``.

        Returns:
            Features ``(R, H)`` with probabilities of verbs and of nouns in place of the logits, and
            log-probabilities of pairs ``(R, C)``.
        """
        features, verb, noun = self._take(features, 0)
        return features, _pick(verb, self.verbs) + _pick(noun, self.nouns)

    def tokens(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`frames`, of tokens: log-probabilities ``(M, C + 1)``, the null class last."""
        features, verb, noun = self._take(features, 1)
        verbs = F.pad(self.verbs, (0, 1), value=self.num_verbs)
        nouns = F.pad(self.nouns, (0, 1), value=self.num_nouns)
        return features, _pick(verb, verbs) + _pick(noun, nouns)

    def scores(self, features: Tensor) -> Tensor:
        """Gives the probabilities of pairs ``(R, C)`` that features of frames ``(R, H)`` carry."""
        widths = [self.num_verbs, self.num_nouns]
        verb, noun = features[:, -sum(widths) :].split(widths, 1)
        return _pick(verb, self.verbs) * _pick(noun, self.nouns)

    def _take(self, features: Tensor, num_null: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gives features, and log-probabilities of verbs and of nouns."""
        widths = [self.num_verbs + num_null, self.num_nouns + num_null]
        kept = features.shape[1] - sum(widths)
        rest, *logits = features.split([kept, *widths], 1)
        verb, noun = (part.float().log_softmax(-1) for part in logits)
        shares = (part.float().softmax(-1).to(features.dtype) for part in logits)
        return torch.cat([rest, *shares], 1), verb, noun


class VerbNounCriterion(MatchCriterion):
    """``MatchCriterion`` of log-probabilities of pairs: verb and noun count half each.

    Args:
        cfg: reads ``Loss``; or the settings.
        pairs: the classes.
        bg_class: numbers of the background classes.
    """

    def __init__(
        self, cfg: CfgNode | LossSettings, pairs: VerbNounPairs, bg_class: Iterable[int] = (0,)
    ) -> None:
        super().__init__(cfg, len(pairs), bg_class)
        self.pairs = pairs

    @property
    def null_classes(self) -> float:
        """The mean of V and N."""
        return (self.pairs.num_verbs + self.pairs.num_nouns) / 2

    def token_probs(self, block: BlockTensors) -> Tensor:
        """Gives the class probabilities ``(M, C + 1)`` of a block's tokens."""
        return block.token_logits.detach().float().exp()

    def class_losses(
        self, block: BlockTensors, targets: VideoTargets, match: Match
    ) -> dict[str, Tensor]:
        """Gives the losses of a block's frames, segments and tokens.

        That of tokens is a mean over all of them, not divided by their weights.
        """
        assert block.segment_logits is not None
        assert block.segment_index is not None
        weights = self.class_weight[targets.labels]
        segments = FrameRows.of_segments(targets, block.segment_index, len(block.segment_logits))
        frame, segment = (
            frame_loss(log_probs.float(), targets.labels, weights, rows)
            for log_probs, rows in (
                (block.frame_logits, FrameRows.of_frames(targets)),
                (block.segment_logits, segments),
            )
        )
        classes = self.token_classes(len(block.token_logits), targets, match)
        values = block.token_logits.float().gather(1, classes[:, None])[:, 0]
        token = -(self.token_weight(classes, targets)[classes] * values).mean()
        return {"loss_frame": frame / 4, "loss_segment": segment / 4, "loss_token": token / 2}

    def smoothness(self, block: BlockTensors) -> Tensor:
        """Gives the smoothing loss of the frames' log-probabilities."""
        return smooth_loss(block.frame_logits, is_log_prob=True)


@META_ARCH_REGISTRY.register()
class FACTVerbNoun(ActionSegmenter):
    """Segments videos into pairs of verb and noun, by blocks ``I`` and ``U``.

    Args:
        cfg: reads ``FACT``, ``Bi``, ``BU``, ``Loss``, ``TM``, ``bg_class`` and
            ``average_transcript_len``; left as it is.
        input_dim: width D of the features.
        pairs: the classes, background included.
        classes: names of the classes, if they are known.

    Raises:
        ConfigError: if values are out of range or contradict each other.
    """

    def __init__(
        self, cfg: CfgNode, input_dim: int, pairs: VerbNounPairs, *, classes: Sequence[str] = ()
    ) -> None:
        background = background_classes(cfg.bg_class, classes or list(map(str, range(len(pairs)))))
        # The network asks for its head while it is built.
        self.pairs = pairs
        settings = settings_of(cfg, pairs.num_verbs + pairs.num_nouns + 2, kinds="IU")
        if settings.trans and settings.blocks[0].a_dim % 2:
            raise ConfigError(
                f"Bi.a_dim is {settings.blocks[0].a_dim}; the embeddings of verb and noun share "
                "it, so it must be even"
            )
        super().__init__(
            settings,
            input_dim,
            len(pairs),
            criterion=VerbNounCriterion(cfg, pairs, background),
            classes=classes,
            standardize=cfg.FACT.standardize,
            mean_matched=cfg.average_transcript_len,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Gives what the class takes; pairs are read from ``FACT.verb_noun``.

        Raises:
            ConfigError: if no pairs are named, or they are not as many as the classes.
            DataError: if a file is missing, broken or lacks a class.
        """
        given = super().from_config(cfg)
        n_classes = given.pop("n_classes")
        pairs = read_pairs(cfg.FACT.verb_noun, given["classes"])
        if len(pairs) != n_classes:
            raise ConfigError(
                f"FACT.verb_noun {cfg.FACT.verb_noun} has {len(pairs)} classes, the model "
                f"{n_classes} (FACT.n_classes, or the training set)"
            )
        return {**given, "pairs": pairs}

    def build_head(self) -> ClassHead:
        """Makes the head of verbs and nouns."""
        return VerbNounHead(self.pairs)

    def build_embedding(self, width: int) -> None:
        """Adds the embeddings of verbs and nouns, half as wide each."""
        self.verb_embed = nn.Embedding(self.pairs.num_verbs, width // 2)
        self.noun_embed = nn.Embedding(self.pairs.num_nouns, width // 2)

    def embed(self, transcript: Tensor) -> Tensor:
        """Embeds the classes of a transcript: ``(S,)`` int64 to ``(S, A)``."""
        head = self.head
        assert isinstance(head, VerbNounHead)
        verb, noun = head.verbs[transcript], head.nouns[transcript]
        return torch.cat([self.verb_embed(verb), self.noun_embed(noun)], -1)

    def predict_video(
        self, sample: Sample, blocks: list[BlockOutput], transcript: Tensor | None
    ) -> ActionPrediction:
        """Gives the prediction; with a transcript the attention alone decides, as published."""
        last = blocks[-1]
        frames, tokens = last.frame_logits.float().exp(), last.token_logits.float().exp()
        attention = last.a2f_attention.float()
        if transcript is None:
            return merge_branches(frames, tokens, attention, self.settings.mwt)
        return merge_with_transcript(frames, tokens, attention, 0.0, transcript)


def _pick(values: Tensor, columns: Tensor) -> Tensor:
    # Indexing in brackets takes five times as long, and its gradient too.
    return values.index_select(1, columns)
