"""Dicts, containers and predictions of detectron2 become ours, and ours become theirs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.interop import fake_parts
from tests.interop.fake_parts import BitMasks, Instances, PolygonMasks
from tests.interop.real import small_cfg
from vidseg import rle
from vidseg.errors import ConfigError, DataError
from vidseg.interop.detectron2.samples import adapt_model, from_sample, to_sample
from vidseg.interop.detectron2.structures import (
    from_clip_instances,
    from_image_list,
    to_clip_instances,
    to_frame_instances,
    to_image_list,
    to_video_instances,
    to_video_output,
)
from vidseg.modeling import build_model
from vidseg.structures import ClipInstances, VideoInstances

SIZE = (6, 8)


@pytest.fixture(autouse=True)
def _theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_parts.install(monkeypatch)


def square(left: int) -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[1:3, left : left + 2] = True
    return mask


EMPTY = torch.zeros(SIZE, dtype=torch.bool)


def truth(classes: list[int], masks: list[Tensor], ids: list[int] | None = None) -> Instances:
    stack = torch.stack(masks) if masks else torch.zeros(0, *SIZE)
    fields: dict[str, Any] = {"gt_classes": torch.tensor(classes, dtype=torch.int64)}
    if ids is not None:
        fields["gt_ids"] = torch.tensor(ids, dtype=torch.int64)
    return Instances(SIZE, gt_masks=BitMasks(stack), **fields)


def tracks() -> VideoInstances:
    """Two tracks over two frames; the second is absent in the first frame."""
    masks = [[square(0), square(1)], [None, square(4)]]
    return VideoInstances(
        scores=torch.tensor([0.9, 0.25]),
        labels=torch.tensor([1, 0]),
        track_ids=torch.tensor([7, 3]),
        masks=[[None if m is None else rle.encode(m) for m in row] for row in masks],
        image_size=SIZE,
        frame_indices=[0, 1],
    )


# Ground truth


def test_rows_of_one_id_are_one_object() -> None:
    """As a mapper of the video systems fills the rows of an absent object."""
    frames = [
        truth([2, -1, 0], [square(0), EMPTY, square(4)], [11, -1, 5]),
        truth([2, 1, -1], [square(1), square(3), EMPTY], [11, 9, -1]),
    ]
    clip = to_clip_instances(frames)
    assert clip.labels.tolist() == [2, 0, 1]
    assert clip.present.tolist() == [[True, True], [True, False], [False, True]]
    assert clip.masks[0, 1].equal(square(1))
    assert not clip.masks[1, 1].any()


def test_rows_need_not_stand_in_one_order() -> None:
    frames = [truth([2, 0], [square(0), square(4)], [11, 5]), truth([0], [square(5)], [5])]
    clip = to_clip_instances(frames)
    assert clip.present.tolist() == [[True, False], [True, True]]
    assert clip.masks[1, 1].equal(square(5))


def test_what_is_not_learnt_or_not_seen_is_left_out() -> None:
    frames = [
        truth([-1, 1, 3], [square(0), EMPTY, square(4)], [1, 2, 3]),
        truth([-1, 1, 3], [square(0), EMPTY, EMPTY], [1, 2, 3]),
    ]
    clip = to_clip_instances(frames)
    assert clip.labels.tolist() == [3]  # class -1: of a class without a counterpart
    assert clip.present.tolist() == [[True, False]]  # an empty mask is an absence


def test_an_image_needs_no_ids() -> None:
    polygons = Instances(
        SIZE,
        gt_masks=PolygonMasks([[[0, 1, 2, 1, 2, 3, 0, 3]], [[4, 1, 6, 1, 6, 3, 4, 3]]]),
        gt_classes=torch.tensor([0, 1]),
    )
    clip = to_clip_instances([polygons])
    assert clip.masks[:, 0].equal(torch.stack([square(0), square(4)]))
    plain = Instances(SIZE, gt_classes=torch.tensor([1]), gt_masks=square(2)[None].float())
    assert to_clip_instances([plain]).masks[0, 0].equal(square(2))
    assert len(to_clip_instances([Instances(SIZE, gt_classes=torch.tensor([]))])) == 0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames with instances"),
        ([truth([0], [square(0)], [4]), truth([1], [square(0)], [4])], "changes its class"),
        ([truth([0, 0], [square(0), square(1)], [4, 4])], "two objects of the same gt_ids"),
        ([truth([0], [square(0)]), truth([], [])], r"have \[1, 0\] objects and no gt_ids"),
        ([Instances(SIZE, gt_classes=torch.tensor([0]))], "no masks .*MODEL.MASK_ON"),
        (
            [truth([0], [square(0)], [4]), Instances((3, 3), gt_classes=torch.tensor([]))],
            "several image sizes",
        ),
        (
            [Instances((3, 3), gt_classes=torch.tensor([0]), gt_masks=BitMasks(square(0)[None]))],
            r"masks have size \(6, 8\), their image \(3, 3\)",
        ),
    ],
)
def test_contradictions_are_told(frames: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_clip_instances(frames)


def test_a_clip_survives_the_way_there_and_back() -> None:
    masks = torch.stack([torch.stack([square(0), EMPTY]), torch.stack([square(3), square(4)])])
    clip = ClipInstances(masks, torch.tensor([1, 0]), masks.flatten(2).any(2))
    frames = from_clip_instances(clip)
    assert [frame.gt_ids.tolist() for frame in frames] == [[0, 1], [-1, 1]]
    assert frames[0].gt_boxes.tensor.tolist() == [[0, 1, 2, 3], [3, 1, 5, 3]]
    back = to_clip_instances(frames)
    assert back.masks.equal(clip.masks)
    assert back.labels.equal(clip.labels)
    assert back.present.equal(clip.present)


# Frames


def test_frames_are_padded_and_cut() -> None:
    frames = [torch.ones(3, 4, 7), 2 * torch.ones(3, 6, 5)]
    images = to_image_list(frames, size_divisibility=4)
    assert images.tensor.shape == (2, 3, 8, 8)
    assert images.image_sizes == [(4, 7), (6, 5)]
    assert float(images.tensor.sum()) == 3 * 4 * 7 + 2 * 3 * 6 * 5
    assert all(map(torch.equal, from_image_list(images), frames))
    with pytest.raises(ValueError, match="needs a frame"):
        to_image_list([])


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_dict_of_a_video(image_format: str) -> None:
    rgb = torch.arange(2 * 3 * 6 * 8, dtype=torch.uint8).view(2, 3, 6, 8)
    given = rgb if image_format == "RGB" else rgb.flip(1)
    item = {
        "image": list(given),
        "instances": [truth([1], [square(0)], [4]), truth([1], [square(1)], [4])],
        "height": 12,
        "width": 16,
        "length": 30,
        "video_id": 5,
        "frame_idx": [3, 9],
        "file_names": ["a", "b"],
        "keep": True,
    }
    sample = to_sample(item, image_format=image_format)
    assert sample["frames"].equal(rgb)
    assert (sample["height"], sample["width"], sample["length"]) == (12, 16, 30)
    assert (sample["video_id"], sample["frame_indices"], sample["keep"]) == (5, [3, 9], True)
    assert sample["instances"].present.all()
    back = from_sample(sample, image_format=image_format)
    assert torch.stack(back["image"]).equal(given)
    assert [frame.gt_ids.tolist() for frame in back["instances"]] == [[0], [0]]
    for key in ("height", "width", "length", "video_id", "frame_idx", "file_names"):
        assert back[key] == item[key], key


def test_dict_of_an_image() -> None:
    item = {
        "image": torch.zeros(3, *SIZE),
        "instances": truth([1], [square(0)]),
        "image_id": 9,
        "file_name": "a.jpg",
    }
    sample = to_sample(item, image_format="RGB")
    assert sample["frames"].shape == (1, 3, *SIZE)
    assert (sample["height"], sample["width"]) == SIZE
    assert (sample["video_id"], sample["file_names"]) == (9, ["a.jpg"])
    assert sample["instances"].num_frames == 1


def test_part_of_a_long_video_counts_on() -> None:
    item = {"image": [torch.zeros(3, *SIZE)], "long_video_start_fidx": 40, "instances": []}
    sample = to_sample(item, image_format="RGB")
    assert "frame_indices" not in sample
    assert "instances" not in sample
    assert sample["long_video_start_fidx"] == 40


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"file_name": "a.jpg"}, "no image; it has file_name"),
        ({"image": [], "video_id": 3}, "video 3 has no frames"),
        ({"image": [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]}, "differ in size"),
        ({"image": torch.zeros(1, 4, 4)}, r"shape \(1, 4, 4\), expected \(3, H, W\)"),
    ],
)
def test_inputs_that_cannot_be_run(item: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_sample(item, image_format="RGB")


# Predictions


def test_predictions_of_a_video() -> None:
    output = to_video_output(tracks())
    assert output["image_size"] == SIZE
    assert output["pred_scores"] == pytest.approx([0.9, 0.25])
    assert (output["pred_labels"], output["pred_ids"]) == ([1, 0], [7, 3])
    assert isinstance(output["pred_masks"], list)
    assert torch.stack(output["pred_masks"]).equal(tracks().masks_tensor())
    assert to_video_instances(output) is output["tracks"]
    bare = {key: output[key] for key in output if key not in ("tracks", "pred_ids")}
    back = to_video_instances(bare)
    assert back.masks == tracks().masks  # what is empty is absent
    assert back.scores.tolist() == pytest.approx([0.9, 0.25])
    assert back.labels.tolist() == [1, 0]
    assert back.track_ids.tolist() == [0, 1]


def test_predictions_of_frames() -> None:
    frames = to_frame_instances(tracks())
    assert [len(frame) for frame in frames] == [1, 2]
    assert frames[1].pred_ids.tolist() == [7, 3]
    assert frames[1].pred_classes.tolist() == [1, 0]
    assert frames[1].pred_masks.equal(torch.stack([square(1), square(4)]))
    assert frames[1].pred_boxes.tensor.tolist() == [[1, 1, 3, 3], [4, 1, 6, 3]]
    back = to_video_instances({"instances": frames[1]})
    assert [row[0] for row in back.masks] == [row[1] for row in tracks().masks]
    assert back.track_ids.tolist() == [7, 3]
    empty = to_frame_instances(VideoInstances.empty(SIZE, [0]))[0]
    assert empty.pred_masks.shape == (0, *SIZE)
    assert len(to_video_instances({"instances": empty})) == 0


def test_soft_masks_count_from_a_half() -> None:
    masks = torch.stack([square(0), square(2)]).float() * 0.6 + 0.1
    output = {"pred_scores": [1.0], "pred_labels": [0], "pred_masks": [masks], "image_size": SIZE}
    assert to_video_instances(output).masks_tensor()[0, 1].equal(square(2))


def test_what_is_no_prediction() -> None:
    with pytest.raises(DataError, match="a prediction holds sem_seg; expected"):
        to_video_instances({"sem_seg": 1})
    with pytest.raises(DataError, match="a prediction holds Tensor; expected"):
        to_video_instances(torch.zeros(1))
    with pytest.raises(DataError, match=r"no masks \(pred_masks\)"):
        to_video_instances({"instances": Instances(SIZE, scores=torch.ones(1))})


# Models


class Recorded(nn.Module):
    """Keeps what it was given."""

    channel_order = "BGR"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("fixed", torch.ones(1), persistent=False)
        self.given: list[Any] = []

    def forward(self, samples: list[Any]) -> Any:
        self.given = samples
        if self.training:
            return {"loss_a": self.layer.weight.sum(), "slots/used": torch.tensor(3.0)}
        return [tracks()[:1] for _ in samples]


def video(**more: Any) -> dict[str, Any]:
    first = torch.full((3, *SIZE), 1, dtype=torch.uint8)
    first[0] = 200  # blue, where channels come as BGR
    return {"image": [first, first], "video_id": 1, **more}


def test_channels_are_turned_once() -> None:
    model = Recorded().eval()
    adapt_model(model)([video()])
    assert model.given[0]["frames"][:, 2].eq(200).all()
    adapt_model(model, image_format="RGB")([video()])
    assert model.given[0]["frames"][:, 0].eq(200).all()
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT 'YUV'"):
        adapt_model(model, image_format="YUV")


def test_the_network_sees_the_values_that_its_weights_expect() -> None:
    """Given in the model's own order, channels meet mean and std in that order."""
    for order in ("RGB", "BGR"):
        model = build_model(small_cfg(INPUT__FORMAT=order)).eval()
        adapted = adapt_model(model)
        item = video()
        frames = to_sample(item, image_format=adapted.image_format)["frames"]
        wanted = (torch.stack(item["image"]).float() - model.pixel_mean) / model.pixel_std
        assert model.preprocess(frames)[..., : SIZE[0], : SIZE[1]].equal(wanted)


def test_outputs_go_the_way_the_inputs_came() -> None:
    adapted = adapt_model(Recorded().eval())
    single = adapted([video()])
    assert single["pred_ids"] == [7]
    several = adapted([video(), {"image": video()["image"][0], "image_id": 2}])
    assert several[0]["task"] == "vis"
    assert len(several[1]["instances"]) == 1
    own = {"frames": torch.zeros(1, 3, *SIZE), "height": 6, "width": 8, "video_id": 3}
    assert isinstance(adapted([own])[0], VideoInstances)
    # What a test mapper of images leaves there has no masks, and nobody needs it.
    boxes_only = Instances(SIZE, gt_classes=torch.tensor([0]))
    assert adapted([{"image": video()["image"][0], "instances": boxes_only}])


def test_losses_are_parted_from_what_is_only_logged() -> None:
    adapted = adapt_model(Recorded().train())
    batch = [video(instances=[truth([1], [square(0)], [4])] * 2)]
    assert set(adapted(batch)) == {"loss_a", "slots/used"}  # nobody of theirs listens
    with fake_parts.storage() as opened:
        assert set(adapted(batch)) == {"loss_a"}
    assert opened.scalars == {"slots/used": 3.0}


def test_only_who_learns_from_ground_truth_needs_it() -> None:
    adapt_model(Recorded().train())([video()])
    with pytest.raises(DataError, match="video 1 has no instances to train on"):
        adapt_model(build_model(small_cfg()).train())([video()])


def test_models_hear_where_the_run_is() -> None:
    model = Recorded().train()
    batch = [video(instances=[truth([1], [square(0)], [4])] * 2)]
    adapt_model(model)(batch)
    assert not {"iteration", "max_iter"} & model.given[0].keys()
    with fake_parts.storage(iteration=12):
        adapt_model(model, max_iter=40)(batch)
    assert (model.given[0]["iteration"], model.given[0]["max_iter"]) == (12, 40)


def test_names_and_modes_are_those_of_the_model() -> None:
    model = Recorded()
    adapted = adapt_model(model)
    assert adapt_model(adapted) is adapted
    assert list(adapted.state_dict()) == list(model.state_dict()) == ["layer.weight", "layer.bias"]
    assert [n for n, _ in adapted.named_parameters()] == ["layer.weight", "layer.bias"]
    adapted.load_state_dict({"layer.weight": torch.zeros(2, 2), "layer.bias": torch.ones(2)})
    assert model.layer.bias.eq(1).all()
    adapted.eval()
    assert not model.training
    assert not model.layer.training
    adapted.train()
    assert model.training
    adapted.double()
    assert model.fixed.dtype == model.layer.weight.dtype == torch.float64
    other = copy.deepcopy(adapted)
    with torch.no_grad():
        other.layer.bias.fill_(5)
    assert other.wrapped.layer.bias.eq(5).all()
    assert model.layer.bias.eq(1).all()


def test_parts_that_the_model_freezes_stay_frozen() -> None:
    model = build_model(small_cfg(MODEL__BACKBONE__FREEZE_AT=2, MODEL__RESNETS__NORM="BN"))
    adapted = adapt_model(model).train()
    assert adapted.backbone.stem.training == model.backbone.stem.training
    names = [name for name, p in adapted.named_parameters() if not p.requires_grad]
    assert names == [name for name, p in model.named_parameters() if not p.requires_grad]
    assert names


def test_a_real_model_learns_from_both_kinds_of_dicts() -> None:
    model = build_model(small_cfg()).train()
    adapted = adapt_model(model)
    frames = [torch.randint(0, 255, (3, *SIZE), dtype=torch.uint8) for _ in range(2)]
    clip = {"image": frames, "instances": [truth([0], [square(0)], [4])] * 2, "video_id": 1}
    losses = adapted([clip, clip])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())
    image = {"image": frames[0], "instances": truth([0], [square(0)]), "image_id": 1}
    blank = {"image": frames[0], "instances": truth([], []), "image_id": 2}
    assert all(value.isfinite() for value in adapted([image, blank]).values())
    assert all(value.isfinite() for value in adapted([blank]).values())


def test_models_of_features_are_refused() -> None:
    model = Recorded()
    model.feature_dim_key = "A.KEY"
    with pytest.raises(ConfigError, match="Recorded reads sequences of features"):
        adapt_model(model)
