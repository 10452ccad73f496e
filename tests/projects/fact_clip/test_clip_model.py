"""FACT_CLIP: what is held out, labels by text, vocabularies, and gamma."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError, UserError
from vidseg.projects.fact_clip import FACT, FACT_CLIP, add_config
from vidseg.projects.fact_clip.contrast import infonce_contrastive_loss

CLASSES = ["background", "cut_apple", "cut_milk", "pour_apple", "pour_milk"]
WIDTH = 12

TINY = [
    *("FACT.ntoken", 8, "FACT.block", "iuU", "FACT.cmr", 0.0, "bg_class", [0]),
    *("Bi.hid_dim", 16, "Bi.a_dim", 8, "Bi.f_dim", 8, "Bi.a_nhead", 2, "Bi.a_ffdim", 16),
    *("Bi.a_layers", 1, "Bi.f", "m2", "Bi.f_ln", False, "Bi.f_ngp", 1, "Bi.f_layers", 2),
    *("Bi.dropout", 0.0, "Bu.f_layers", 2, "BU.f_layers", 2),
    *("CLIP.proj_hidden", 16, "CLIP.proj_dropout", 0.0, "CLIP.embed_dim", 32),
]


def config(*overrides: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_list([*TINY, *overrides])
    return cfg


def build(*overrides: Any) -> FACT_CLIP:
    torch.manual_seed(0)
    return FACT_CLIP(config(*overrides), WIDTH, len(CLASSES), classes=CLASSES)


def video(num_frames: int = 40, seed: int = 0, classes: int = 5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    runs = torch.randint(classes, (num_frames // 5 + 1,), generator=generator)
    return {
        "video_id": f"v{seed}",
        "features": torch.randn(num_frames, WIDTH, generator=generator),
        "labels": runs.repeat_interleave(5)[:num_frames],
    }


def test_total_is_that_of_fact_and_the_weighted_contrast() -> None:
    model = build("CLIP.weight", 0.5, "CLIP.feature", "frame").train()
    plain = FACT(config(), WIDTH, len(CLASSES), classes=CLASSES)
    plain.load_state_dict(model.state_dict(), strict=False)
    samples = [video(30, 0), video(45, 1)]
    losses = model(samples)
    expected = plain.train()(samples)
    contrast = losses.pop("loss_contrastive")
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    assert model.alignment is not None
    features = torch.cat([model.run_sample(s)[0][-1].frame_features for s in samples])
    by_hand = infonce_contrastive_loss(
        model.alignment.projections[0](features),
        model.text_embeddings,
        torch.cat([s["labels"] for s in samples]),
        0.07,
    )
    torch.testing.assert_close(contrast, 0.5 * by_hand)


def test_without_alignment_it_is_fact() -> None:
    model = build("CLIP.enable", False)
    assert "loss_contrastive" not in model.train()([video()])
    assert model.eval()([video()])[0].zero_shot is None
    with pytest.raises(ValueError, match="this model knows no texts"):
        model.eval_with_clip(video())
    with pytest.raises(ConfigError, match=r"CLIP\.enable is off"):
        model.set_vocabulary(["pour_milk"])


def test_held_out_frames_teach_nothing() -> None:
    overrides = ("CLIP.unseen", ["cut_milk"], "CLIP.pseudo_unseen", ["pour_apple"])
    model = build(*overrides).train()
    sample = video(60)
    hidden = torch.isin(sample["labels"], torch.tensor([2, 3]))
    assert hidden.any()
    losses = model([sample])
    exchanged = sample["labels"].clone()
    exchanged[hidden] = 5 - exchanged[hidden]
    for name, value in model([{**sample, "labels": exchanged}]).items():
        torch.testing.assert_close(losses[name], value)
    sum(losses.values()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert not torch.isin(model.eval()([sample])[0].labels, torch.tensor([2, 3])).any()


def test_video_of_unseen_classes_alone_has_losses_of_zero_gradient_and_no_crash() -> None:
    model = build("CLIP.unseen", ["cut_milk"]).train()
    sample = {**video(), "labels": torch.full((40,), 2)}
    losses = model([sample])
    assert losses["loss_contrastive"].item() == 0
    total = sum(losses.values())
    total.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_dropped_videos_set_no_scale(mode: str) -> None:
    unseen = ("CLIP.unseen", ["cut_milk"], "CLIP.unseen_mode", mode)
    model = build(*unseen, "FACT.standardize", True)
    samples = [video(40, 0), {**video(30, 1), "labels": torch.full((30,), 1)}]
    assert (samples[0]["labels"] == 2).any()
    model.at_iteration(0, 5, lambda: [samples])
    assert model.standardisation is not None
    assert int(model.standardisation.num_frames) == {"mask": 70, "drop": 30}[mode]
    assert model.is_fitted


def test_a_scale_needs_no_labels() -> None:
    model = build("CLIP.unseen", ["cut_milk"], "FACT.standardize", True)
    sample = video()
    del sample["labels"]
    model.at_iteration(0, 5, lambda: [[sample]])
    assert int(model.standardisation.num_frames) == 40


@pytest.mark.parametrize("blocks", [[-1], [0, 2], [0, 1, 2]])
def test_any_blocks_can_be_aligned(blocks: list[int]) -> None:
    model = build("CLIP.blocks", blocks).train()
    assert model.alignment is not None
    model([video()])["loss_contrastive"].backward()
    for projection in model.alignment.projections:
        gradient = projection.fc2.weight.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
    aligned = model.alignment.settings.blocks[-1]
    sample = video()
    with torch.no_grad():
        found = model.eval()([sample])[0].zero_shot
        features = model.run_sample(sample)[0][aligned].frame_features[:, : -len(CLASSES)]
        cosine = model.alignment.projections[-1](features) @ model.text_embeddings.t()
    torch.testing.assert_close(found.cosine, cosine)


def test_closed_set_probabilities_are_left_out_on_demand() -> None:
    widths = {}
    for feature in ("frame", "frame_noprob"):
        model = build("CLIP.feature", feature)
        assert model.alignment is not None
        widths[feature] = model.alignment.projections[0].fc1.in_features
    assert widths == {"frame": 16, "frame_noprob": 16 - len(CLASSES)}


def test_gamma_is_subtracted_from_seen_classes_alone() -> None:
    model = build("CLIP.unseen", ["cut_milk", "pour_apple"]).eval()
    found = model.eval_with_clip(video(), gamma=0.3)
    assert found.seen.tolist() == [True, True, False, False, True]
    scores = found.cosine - 0.3 * torch.tensor([1.0, 1, 0, 0, 1])
    assert torch.equal(found.labels, scores.argmax(1))
    everything = model.eval_with_clip(video(), gamma=10.0)
    assert set(everything.labels.tolist()) <= {2, 3}
    mask = torch.tensor([False, True, True, True, True])
    assert model.eval_with_clip(video(), seen_mask=mask, gamma=10.0).labels.unique().tolist() == [0]


def test_candidates_by_name_and_number() -> None:
    model = build("CLIP.unseen", ["cut_milk", "pour_apple"]).eval()
    whole = model.eval_with_clip(video())
    part = model.eval_with_clip(video(), ["pour_apple", 2])
    assert part.candidates == ["pour_apple", "cut_milk"]
    torch.testing.assert_close(part.cosine, whole.cosine[:, [3, 2]])
    torch.testing.assert_close(part.probabilities, (part.cosine / 0.07).softmax(1))
    with pytest.raises(ValueError, match="'fly' is not in the vocabulary"):
        model.eval_with_clip(video(), ["fly"])
    with pytest.raises(ValueError, match="9 is not one of the 5 classes"):
        model.eval_with_clip(video(), [9])
    with pytest.raises(ValueError, match="1 values for 2 candidates"):
        model.eval_with_clip(video(), [0, 1], torch.tensor([True]))


def test_features_alone_are_enough_and_training_goes_on() -> None:
    model = build().train()
    found = model.eval_with_clip(video()["features"])
    assert model.training
    torch.testing.assert_close(found.cosine, model.eval()([video()])[0].zero_shot.cosine)


def test_vocabulary_can_be_swapped() -> None:
    model = build("CLIP.unseen", ["pour_apple"]).eval()
    before = model.eval_with_clip(video()).cosine
    model.set_vocabulary(["pour_milk", "fly_kite", "pour_apple"])
    found = model([video()])[0].zero_shot
    assert found.candidates == ["pour_milk", "fly_kite", "pour_apple"]
    assert found.seen.tolist() == [True, False, False]
    torch.testing.assert_close(found.cosine[:, [0, 2]], before[:, [4, 3]])
    with pytest.raises(ValueError, match="the vocabulary was swapped"):
        model.train()([video()])
    with pytest.raises(ValueError, match=r"expected \(classes, 32\)"):
        model.set_text_embeddings(torch.ones(2, 7), ["a", "b"])
    with pytest.raises(ValueError, match="3 names do not fit 2 text embeddings"):
        model.set_text_embeddings(torch.ones(2, 32))
    model.set_vocabulary(["pour milk", "pour apple"])  # the same classes, with spaces
    assert model.eval()([video()])[0].zero_shot.seen.tolist() == [True, False]


def test_classes_of_the_training_are_known_in_other_spellings() -> None:
    model = build("CLIP.unseen", ["pour_apple"], "CLIP.name_map", ["pour_milk=add the milk"]).eval()
    before = model.eval_with_clip(video()).cosine
    model.set_vocabulary(["pour apple", "add the milk"])
    found = model([video()])[0].zero_shot
    assert found.candidates == ["pour_apple", "pour_milk"]
    assert found.seen.tolist() == [False, True]
    torch.testing.assert_close(found.cosine, before[:, [3, 4]])
    with pytest.raises(UserError, match="pour_apple"):
        model.set_vocabulary(["pour apple", "pour_apple"])


def test_text_embeddings_are_unit_rows_whatever_is_given() -> None:
    model = build()
    model.set_text_embeddings(torch.full((5, 32), 4.0))
    torch.testing.assert_close(model.text_embeddings.norm(dim=1), torch.ones(5))
    assert not any("text_embeddings" in name for name in model.state_dict())


def test_batch_of_unequal_lengths_predicts_as_single_videos() -> None:
    model = build("CLIP.smoothing", "segments").eval()
    samples = [video(40, 0), video(23, 1), video(1, 2)]
    for sample, together in zip(samples, model(samples), strict=True):
        alone = model([sample])[0]
        torch.testing.assert_close(together.zero_shot.cosine, alone.zero_shot.cosine)
        assert torch.equal(together.zero_shot.labels, alone.zero_shot.labels)


def test_gamma_of_the_config_wins_over_the_chosen_one() -> None:
    chosen = build("CLIP.unseen", ["cut_milk"])
    assert chosen.alignment is not None
    assert chosen.alignment.gamma == 0
    chosen.alignment.chosen_gamma.fill_(0.25)
    carried = build("CLIP.unseen", ["cut_milk"])
    carried.load_state_dict(chosen.state_dict())
    assert carried.eval()([video()])[0].zero_shot.gamma == 0.25
    fixed = build("CLIP.unseen", ["cut_milk"], "CLIP.gamma", 0.1)
    fixed.load_state_dict(chosen.state_dict())
    assert fixed.eval()([video()])[0].zero_shot.gamma == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("CLIP.unseen", ["cut_mlk"]), "CLIP.unseen names 'cut_mlk'.*nearest: cut_milk"),
        (("CLIP.unseen", ["background"]), "background, which is background"),
        (
            ("CLIP.unseen", ["cut_milk"], "CLIP.pseudo_unseen", ["cut_milk"]),
            "cut_milk stands in CLIP.unseen and in CLIP.pseudo_unseen",
        ),
        (("CLIP.unseen", CLASSES[1:]), "CLIP.unseen leaves no class to train on"),
        (("CLIP.pseudo_unseen", CLASSES[1:]), "CLIP.pseudo_unseen leaves no class to train on"),
        (("CLIP.blocks", [3]), r"block 3, but FACT.block has 3: 0 to 2"),
        (("CLIP.blocks", []), "name one block or several different ones"),
        (("CLIP.blocks", [2, -1]), "several different ones"),
        (("CLIP.t2v_mode", "supcom"), "CLIP.t2v_mode is 'supcom'.*nearest: supcon"),
        (("CLIP.temperature", 0.0), "CLIP.temperature is 0.0; set a positive number"),
        (("CLIP.temperature", float("inf")), "CLIP.temperature is inf; set a positive number"),
        (("CLIP.proj_dropout", 1.0), "CLIP.proj_dropout is 1.0"),
        (("CLIP.gamma", "high"), "CLIP.gamma is high; set a number"),
        (("CLIP.min_duration", 0), "CLIP.min_duration is 0"),
        (("CLIP.smoothing", "viterbi"), "CLIP.min_duration is 1; CLIP.smoothing viterbi changes"),
        (("CLIP.calibration_set", "some_val"), "no class is held out.*CLIP.pseudo_unseen"),
        (
            *(
                (
                    "CLIP.calibration_set",
                    "x",
                    "CLIP.unseen",
                    ["cut_milk"],
                    "SOLVER.EMA.ENABLED",
                    True,
                ),
            ),
            "SOLVER.EMA.ENABLED keeps averaged ones",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(*overrides)


def test_unseen_classes_come_from_a_file(tmp_path: Any) -> None:
    file = tmp_path / "splits.json"
    file.write_text('{"hard": {"unseen": ["pour_apple"]}, "easy": ["cut_milk"]}')
    for key, number in (("hard", 3), ("easy", 2)):
        model = build("CLIP.unseen", [f"{file}:{key}"])
        assert model.alignment is not None
        assert model.alignment.split.unseen == (number,)
    with pytest.raises(ConfigError, match=r"holds no 'xyz'; it has .*hard"):
        build("CLIP.unseen", [f"{file}:xyz"])
    with pytest.raises(ConfigError, match=r"holds no 'hart'; nearest: hard"):
        build("CLIP.unseen", [f"{file}:hart"])


def test_cosines_stay_precise_in_mixed_precision() -> None:
    model = build().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = model([video()])[0].zero_shot
        losses = model.train()([video()])
    assert found.cosine.dtype == torch.float32
    assert not torch.equal(found.cosine, found.cosine.bfloat16().float())
    assert losses["loss_contrastive"].dtype == torch.float32


def test_labels_of_predictions_are_numpy_ready() -> None:
    found = build().eval()([video()])[0].zero_shot
    assert found.labels.numpy().dtype == np.int64
    assert found.cosine.dtype == torch.float32
    assert found.cosine.device.type == "cpu"


def test_untrained_projection_stands_beside_a_trained_one() -> None:
    model = build("CLIP.unseen", ["cut_milk"]).eval()
    keys = list(model.state_dict())
    before = model([video()])[0].zero_shot
    assert model.alignment is not None
    for parameter in model.alignment.projections.parameters():
        torch.nn.init.normal_(parameter)
    after = model([video()])[0].zero_shot
    assert not torch.allclose(before.cosine, after.cosine)
    torch.testing.assert_close(before.untrained, after.untrained)
    assert before.untrained.shape == (40, 5)
    assert list(model.state_dict()) == keys
    assert model.eval_with_clip(video(), ["cut_milk"]).untrained is None
