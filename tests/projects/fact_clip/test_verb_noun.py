"""The variant with verbs and nouns: parity with a recorded run, and what pairs mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.projects.fact_clip.golden_ground import (
    ATOL,
    LOSS_RTOL,
    FactCase,
    fill,
    load_fact_case,
)
from vidseg.errors import ConfigError
from vidseg.projects.fact_clip.samples import Sample
from vidseg.projects.fact_clip.targets import VideoTargets
from vidseg.projects.fact_clip.verb_noun import FACTVerbNoun, VerbNounHead
from vidseg.projects.fact_clip.verb_noun_pairs import VerbNounPairs

INPUT_DIM = 20
PAIRS = VerbNounPairs.of([(0, 0), (1, 1), (1, 2), (2, 3), (3, 4), (2, 1)])


@pytest.fixture(scope="module")
def case() -> FactCase:
    return load_fact_case("verbnoun_IUU")


@pytest.fixture
def model(case: FactCase) -> FACTVerbNoun:
    model = FACTVerbNoun(case.cfg, INPUT_DIM, PAIRS)
    fill(model)
    return model.eval()


def targets_of(case: FactCase) -> VideoTargets:
    return VideoTargets.of(case.inputs["label"])


def video(num_frames: int, *, seed: int = 0, num_segments: int = 4) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_frames, INPUT_DIM, generator=generator)
    labels = torch.arange(num_frames) * num_segments // num_frames * 5 % len(PAIRS)
    return {"video_id": f"v{seed}", "features": features, "labels": labels}


def test_state_dict_is_the_recorded_one(case: FactCase, model: FACTVerbNoun) -> None:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    recorded = {name: s for name, s in case.names_shapes.items() if not name.endswith(".pe")}
    assert shapes == recorded


def test_pairs_are_those_of_the_recorded_run(case: FactCase) -> None:
    assert case.inputs["verb_of_action"].tolist() == list(PAIRS.verbs)
    assert case.inputs["noun_of_action"].tolist() == list(PAIRS.nouns)


def test_blocks_give_the_recorded_tensors(case: FactCase, model: FACTVerbNoun) -> None:
    with torch.no_grad():
        blocks = model.run_blocks(case.inputs["seq"])
    assert len(blocks) == 3

    def check(found: Tensor, name: str) -> None:
        torch.testing.assert_close(found, case.outputs[name], atol=ATOL, rtol=0)

    for number, block in enumerate(blocks):
        assert block.segments is not None
        assert block.segment_logits is not None
        assert torch.equal(block.segments.starts, case.outputs[f"b{number}_seg_start"])
        assert torch.equal(block.segments.lengths, case.outputs[f"b{number}_seg_len"])
        check(block.frame_logits[:, None], f"b{number}_frame_logp")
        check(block.token_logits[:, None], f"b{number}_action_logp")
        check(block.segment_logits[:, None], f"b{number}_seg_logp")
        if number:
            check(block.a2f_attention[None], f"b{number}_a2f_attn")
            check(block.f2a_attention[None], f"b{number}_f2a_attn")


def test_match_and_losses_are_the_recorded_ones(case: FactCase, model: FACTVerbNoun) -> None:
    blocks = model.run_blocks(case.inputs["seq"])
    targets = targets_of(case)
    match = model.criterion.match_block(blocks[-1], targets)
    order, recorded = match.segments.argsort(), case.outputs["match_segment"].argsort()
    assert torch.equal(match.tokens[order], case.outputs["match_token"][recorded])
    for number, block in enumerate(blocks):
        loss = sum(model.criterion.losses([block], targets, match).values())
        expected = case.outputs["block_loss"][number].float()
        torch.testing.assert_close(loss, expected, rtol=LOSS_RTOL, atol=0)
    total = sum(model.criterion(blocks, targets).values())
    torch.testing.assert_close(total, case.outputs["loss"].float(), rtol=LOSS_RTOL, atol=0)


def test_prediction_is_the_recorded_one(case: FactCase, model: FACTVerbNoun) -> None:
    sample = {"video_id": "v0", "features": case.inputs["seq"]}
    (prediction,) = model([sample])
    assert torch.equal(prediction.labels, case.outputs["b2_pred"])
    assert torch.equal(prediction.labels, prediction.probabilities.argmax(1))
    blocks = model.run_blocks(case.inputs["seq"])
    middle = model.predict_video(sample, blocks[:2], None)
    assert torch.equal(middle.labels, case.outputs["b1_pred"])


def test_a_pair_is_as_likely_as_its_verb_times_its_noun() -> None:
    head = VerbNounHead(PAIRS)
    features, log_probs = head.frames(torch.randn(7, 15))
    verb, noun = features[:, 6:10], features[:, 10:]
    for shares in (verb, noun):
        torch.testing.assert_close(shares.sum(1), torch.ones(7))
    for number, (v, n) in enumerate(zip(PAIRS.verbs, PAIRS.nouns, strict=True)):
        torch.testing.assert_close(log_probs[:, number].exp(), verb[:, v] * noun[:, n])
    torch.testing.assert_close(head.scores(features), log_probs.exp())


def test_no_verb_with_no_noun_is_the_null_class() -> None:
    logits = torch.zeros(1, 12)
    logits[0, [5, 11]] = 20.0  # the fifth of 5 verbs and the last of 6 nouns, after a feature
    features, log_probs = VerbNounHead(PAIRS).tokens(logits)
    assert log_probs.shape == (1, len(PAIRS) + 1)
    assert log_probs[0, -1] > -1e-6
    assert features.shape == logits.shape
    assert (log_probs[0, :-1] < -30).all()


def test_background_and_null_weigh_what_the_settings_say(case: FactCase) -> None:
    cfg = case.cfg.clone()
    cfg.Loss.bgw, cfg.Loss.nullw, cfg.bg_class = 0.5, -1.0, [3]
    criterion = FACTVerbNoun(cfg, INPUT_DIM, PAIRS).criterion
    criterion.set_mean_matched(12, 4.0)
    weight = criterion.token_weight(torch.zeros(12, dtype=torch.int64), targets_of(case))
    expected = torch.ones(7)
    expected[3], expected[6] = 0.5, 12 / (8 * 4.5)  # 4 verbs and 5 nouns
    torch.testing.assert_close(weight, expected)


def test_videos_of_a_batch_do_not_disturb_each_other(case: FactCase, model: FACTVerbNoun) -> None:
    videos = [video(40, seed=1), video(25, seed=2)]
    together = model(videos)
    for one, prediction in zip(videos, together, strict=True):
        (alone,) = model([one])
        torch.testing.assert_close(prediction.probabilities, alone.probabilities, atol=1e-5, rtol=0)
    cfg = case.cfg.clone()
    cfg.FACT.cmr = cfg.Bi.dropout = cfg.BU.dropout = 0.0
    model = FACTVerbNoun(cfg, INPUT_DIM, PAIRS).train()
    both, first, second = (model(part) for part in (videos, videos[:1], videos[1:]))
    for name, value in both.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 30])
@pytest.mark.parametrize("label", [None, 0])
def test_every_gradient_is_finite(case: FactCase, num_frames: int, label: int | None) -> None:
    torch.manual_seed(0)
    model = FACTVerbNoun(case.cfg, INPUT_DIM, PAIRS).train()
    sample = video(num_frames)
    if label is not None:
        sample["labels"].fill_(label)
    sum(model([sample]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_frames_without_label_do_not_matter(case: FactCase, model: FACTVerbNoun) -> None:
    labels = case.inputs["label"].clone()
    blocks = model.run_blocks(case.inputs["seq"])
    labels[5:20] = -100
    losses = model.criterion(blocks, labels)
    for block in blocks:
        block.frame_logits = block.frame_logits.clone()
        block.frame_logits[5:20] = -7.0
    changed = model.criterion(blocks, labels)
    for name in set(losses) - {"loss_smooth"}:
        torch.testing.assert_close(changed[name], losses[name], msg=name)


def test_a_transcript_is_followed(case: FactCase) -> None:
    cfg = case.cfg.clone()
    cfg.FACT.trans, cfg.Loss.match = True, "seq"
    torch.manual_seed(0)
    model = FACTVerbNoun(cfg, INPUT_DIM, PAIRS)
    assert model.verb_embed.weight.shape == (4, 8)
    assert model.noun_embed.weight.shape == (5, 8)
    sample = video(40)
    (prediction,) = model.eval()([sample])
    transcript = sample["labels"].unique_consecutive()
    blocks = model.run_blocks(sample["features"], transcript)
    chosen = transcript[blocks[-1].a2f_attention.argmax(1)]
    assert torch.equal(prediction.labels, chosen)
    losses = model.train()([sample])
    sum(losses.values()).backward()
    assert model.noun_embed.weight.grad is not None
    used = model.noun_embed.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [noun in {PAIRS.nouns[c] for c in transcript} for noun in range(5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FACT.block": "iUU"}, "'i' is none of the blocks I"),
        ({"Bi.hid_dim": 10, "BU.hid_dim": 10}, "must exceed the 11 class logits"),
        (
            {"FACT.trans": True, "Bi.a_dim": 15, "BU.a_dim": 15, "Bi.a_nhead": 5, "BU.a_nhead": 5},
            "Bi.a_dim is 15; the embeddings of verb and noun share it",
        ),
        ({"bg_class": [6]}, "bg_class: 6 is not one of the 6 classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    case: FactCase, changes: dict[str, object], message: str
) -> None:
    cfg = case.cfg.clone()
    for key, value in changes.items():
        cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=message):
        FACTVerbNoun(cfg, INPUT_DIM, PAIRS)
