import json

import numpy as np
import pytest
import torch

from vidseg import rle
from vidseg.structures import ClipInstances, ShapeSpec, VideoInstances, masks_to_boxes


def clip(num: int = 3, frames: int = 2) -> ClipInstances:
    masks = torch.rand(num, frames, 4, 6) > 0.5
    return ClipInstances(masks, torch.arange(num), torch.ones(num, frames, dtype=torch.bool))


def video(num: int = 3, frames: int = 4) -> tuple[VideoInstances, torch.Tensor]:
    masks = torch.rand(num, frames, 5, 7) > 0.5
    if num:
        masks[0, 1] = False
    rles = [rle.encode(track) for track in masks]
    if num:
        rles[0][1] = None
    scores = torch.linspace(0.9, 0.1, num)
    instances = VideoInstances(
        scores, torch.arange(num) % 2, torch.arange(num) + 10, rles, (5, 7), list(range(frames))
    )
    return instances, masks


def test_shape_specs_compare_by_value() -> None:
    assert ShapeSpec(64, stride=4) == ShapeSpec(channels=64, stride=4)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_clip_padding_and_frames(num: int) -> None:
    instances = clip(num)
    padded = instances.pad_to(5, 8)
    assert padded.masks.shape == (num, 2, 5, 8)
    assert not padded.masks[..., 4:, :].any()
    assert not padded.masks[..., 6:].any()
    torch.testing.assert_close(padded.masks[..., :4, :6], instances.masks)
    last = instances.frames(1, 2)
    assert (len(last), last.num_frames, last.image_size) == (num, 1, (4, 6))
    torch.testing.assert_close(last.masks[:, 0], instances.masks[:, 1])
    with pytest.raises(ValueError, match="do not fit"):
        instances.pad_to(3, 8)


@pytest.mark.parametrize(
    "rows", [1, -1, slice(0, 2), [2, 0], torch.tensor([2, 0]), torch.tensor([True, False, True])]
)
def test_rows_are_selected_alike(rows: object) -> None:
    order = torch.arange(3)[rows].reshape(-1)
    instances, (tracks, masks) = clip(), video()
    torch.testing.assert_close(instances[rows].masks, instances.masks[order])
    torch.testing.assert_close(instances[rows].labels, order)
    torch.testing.assert_close(tracks[rows].track_ids, order + 10)
    torch.testing.assert_close(tracks[rows].masks_tensor(), masks[order])


def test_moving_to_a_device_keeps_everything() -> None:
    moved = clip().to("cpu")
    assert moved.masks.device.type == "cpu"
    assert len(moved) == 3


@pytest.mark.parametrize(
    ("masks", "labels", "present"),
    [((2, 3, 4), (2,), (2, 3)), ((2, 3, 4, 5), (3,), (2, 3)), ((2, 3, 4, 5), (2,), (2, 2))],
)
def test_clip_shapes_must_agree(masks: tuple, labels: tuple, present: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        ClipInstances(torch.zeros(masks), torch.zeros(labels), torch.zeros(present))


def test_video_lengths_must_agree() -> None:
    one = rle.empty(2, 2)
    with pytest.raises(ValueError, match="scores have shape"):
        VideoInstances(torch.zeros(2), torch.zeros(1), torch.zeros(1), [[one]], (2, 2), [0])
    with pytest.raises(ValueError, match="1 masks, but there are 2"):
        VideoInstances(torch.zeros(1), torch.zeros(1), torch.zeros(1), [[one]], (2, 2), [0, 1])


def test_masks_decode_and_absent_frames_are_background() -> None:
    tracks, masks = video()
    decoded = tracks.masks_tensor()
    assert decoded.dtype == torch.bool
    torch.testing.assert_close(decoded, masks)
    none = VideoInstances.empty((5, 7), [3, 4])
    assert none.masks_tensor().shape == (0, 2, 5, 7)
    assert (len(none), none.num_frames, none.to_results(1, [])) == (0, 2, [])


def test_results_are_json_with_the_ids_of_the_data_set() -> None:
    tracks, masks = video()
    records = json.loads(json.dumps(tracks.to_results(42, [7, 9])))
    assert [record["category_id"] for record in records] == [7, 9, 7]
    assert {record["video_id"] for record in records} == {42}
    assert records[0]["segmentations"][1] is None
    assert records[0]["score"] == pytest.approx(0.9)
    assert tracks.to_results(42, {0: 7, 1: 9}) == tracks.to_results(42, [7, 9])
    read = rle.from_segmentation(records[2]["segmentations"][3], 5, 7)
    np.testing.assert_array_equal(rle.decode(read), masks[2, 3].numpy())


@pytest.mark.parametrize("category_ids", [[7], {0: 7}])
def test_results_need_an_id_for_every_label(category_ids: list[int] | dict[int, int]) -> None:
    with pytest.raises(ValueError, match="label 1 of a track has no category id: there are 1"):
        video()[0].to_results(42, category_ids)


def test_boxes_of_masks() -> None:
    masks = torch.zeros(2, 2, 4, 6, dtype=torch.bool)
    masks[0, 0, 1:3, 2:5] = True
    masks[1, 1] = True
    expected = torch.tensor([[[2, 1, 5, 3], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 6, 4]]])
    torch.testing.assert_close(masks_to_boxes(masks), expected)
    assert masks_to_boxes(masks[:0]).shape == (0, 2, 4)
