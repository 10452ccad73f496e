"""Explanations as files: what is written, that it can be read, and where the heat lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg import rle
from vidseg.errors import DataError
from vidseg.structures import Explanation, FrameAttention, QueryRows, VideoInstances
from vidseg.video.draw import Drawing, track_color
from vidseg.video.explain import _captions, _notes, save_explanation
from vidseg.video.heat import HeatPainter, color_bar, inside_share, spread
from vidseg.video.io import VideoReader

SIZE = (48, 64)
FRAMES = [0, 2, 4, 6]


def box_mask(top: int, left: int) -> rle.RLE:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + 16, left : left + 16] = True
    return rle.encode(mask)


def result(num_frames: int = 4) -> VideoInstances:
    late = [None, None, box_mask(32, 48), box_mask(32, 48)]
    return VideoInstances(
        scores=torch.tensor([0.9, 0.3]),
        labels=torch.tensor([1, 0]),
        track_ids=torch.tensor([7, 3]),
        masks=[[box_mask(0, 0)] * num_frames, late[:num_frames]],
        image_size=SIZE,
        frame_indices=FRAMES[:num_frames],
    )


def frame_attention() -> FrameAttention:
    maps = torch.zeros(2, 3, 4)
    maps[0, 0, 0] = 1  # the cell under the mask of track 7
    return FrameAttention(maps, (1.0, 1.0), [5, -1], [0.75, 0.0])


def explanation(num_frames: int = 4, *, tracker: bool = True) -> Explanation:
    def attention() -> Iterator[FrameAttention]:
        for _ in range(num_frames):
            yield frame_attention()

    rows = [
        QueryRows(0, 6, [5], [3], [True]),
        QueryRows(1, 6, [0, 3], [3, 7], [False, True]),
        QueryRows(2, 6, [1], [7], [True], ended=[3]),
        QueryRows(1, 6, [0, 1, 2], [7, 8, 9], [True, True, True]),
    ]
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.5, 0.5]])
    return Explanation(
        [7, 3],
        attention,
        "a source",
        frame_weights=weights[:, :num_frames] if tracker else None,
        rows=rows[:num_frames] if tracker else None,
    )


def grey() -> list[np.ndarray]:
    return [np.full((*SIZE, 3), 90, dtype=np.uint8)] * 8


def test_all_files_are_written_and_can_be_read(tmp_path: Path) -> None:
    files = save_explanation(grey(), result(), explanation(), tmp_path, class_names=["a", "b"])
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"attention_7.png", "attention_3.png", "frame_weights.png", "anchors.png"}
    numbers = {"attention.json", "frame_weights.json", "anchors.json"}
    assert names == pictures | numbers | {"attention_7.mp4", "attention_3.mp4"}
    assert {path.name for path in files} == names
    for name in pictures:
        with Image.open(tmp_path / name) as image:
            image.load()
            assert min(image.size) > 100
    for track in (7, 3):
        assert len(list(VideoReader(tmp_path / f"attention_{track}.mp4"))) == 4


def test_the_numbers(tmp_path: Path) -> None:
    save_explanation(grey(), result(), explanation(), tmp_path)
    attention = json.loads((tmp_path / "attention.json").read_text())
    assert attention["source"] == "a source"
    seven, three = attention["tracks"]["7"], attention["tracks"]["3"]
    assert [record["frame"] for record in seven] == FRAMES
    assert {(record["query"], record["share"], record["peak"]) for record in seven} == {
        (5, 0.75, 1)
    }
    assert all(0.7 < record["inside"] < 1 for record in seven)  # smoothed over the border
    assert {(record["query"], record["inside"]) for record in three} == {(-1, 0)}
    weights = json.loads((tmp_path / "frame_weights.json").read_text())
    assert weights["frames"] == FRAMES
    assert weights["weights"]["7"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    frames = json.loads((tmp_path / "anchors.json").read_text())["frames"]
    assert [frame["frame"] for frame in frames] == FRAMES
    assert frames[1]["tracks"] == [{"row": 0, "id": 3, "visible": False}]
    assert frames[1]["births"] == [{"row": 3, "anchor": 2, "id": 7}]
    assert frames[2] == {
        "frame": 4,
        "num_tracks": 2,
        "num_anchors": 6,
        "tracks": [{"row": 1, "id": 7, "visible": True}],
        "births": [],
        "ended": [3],
    }
    assert [birth["anchor"] for birth in frames[3]["births"]] == [0, 1]


def test_only_what_there_is_and_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("stays")
    save_explanation(grey(), result(), explanation(), tmp_path)
    plain = explanation(tracker=False)
    plain.track_ids = [7]
    save_explanation(grey(), result(), plain, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine.txt", "attention_7.mp4", "attention_7.png", "attention.json"}


def test_a_picture_has_no_video_and_no_curve(tmp_path: Path) -> None:
    Image.fromarray(grey()[0]).save(tmp_path / "one.png")
    folder = tmp_path / "explain"
    save_explanation(tmp_path / "one.png", result(1), explanation(1), folder)
    names = {path.name for path in folder.iterdir()}
    pictures = {"attention_7.png", "attention_3.png", "anchors.png"}
    assert names == pictures | {"attention.json", "anchors.json"}


def test_notes_say_what_the_pictures_hold() -> None:
    shared = {"query": 5, "share": 0.75}
    whole, absent = {"query": 5, "share": 1.0}, {"query": -1, "share": 0.0}
    texts = ["\n".join(_notes("s", [record])) for record in (shared, whole, absent)]
    assert ["in brackets" in text for text in texts] == [True, False, False]
    assert ["not tracked here" in text for text in texts] == [False, False, True]
    frame = {"frame": 2, "inside": 0.5}
    assert _captions({**shared, **frame}, True)[1] == "query 5 (75%)"
    assert _captions({**whole, **frame}, True)[1] == "query 5"


def test_without_tracks_there_is_no_attention(tmp_path: Path) -> None:
    nothing = explanation()
    nothing.track_ids, nothing.frame_weights = [], None
    save_explanation(grey(), VideoInstances.empty(SIZE, FRAMES), nothing, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"anchors.png", "anchors.json"}


def test_another_video_is_refused_and_leaves_no_half_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the source has no frame 4"):
        save_explanation(grey()[:3], result(), explanation(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_many_tracks_make_no_endless_picture(tmp_path: Path) -> None:
    many = explanation()
    ids = list(range(300))
    many.rows = [QueryRows(0, 300, ids, ids, [True] * 300)]
    many.rows += [QueryRows(300, 300, ids, ids, [True] * 300) for _ in range(3)]
    save_explanation(grey(), result(), many, tmp_path)
    with Image.open(tmp_path / "anchors.png") as image:
        assert max(image.size) < 2500


def test_cells_in_the_padding_are_cut_off() -> None:
    cells = np.zeros((4, 4), dtype=np.float32)
    cells[:, 2:] = 1  # the right half spans padding only
    assert spread(cells, (1.0, 2.0), SIZE).shape == SIZE
    assert float(spread(cells, (1.0, 2.0), SIZE)[:, :40].max()) < 0.2
    assert float(spread(cells, (1.0, 1.0), SIZE)[:, 40:].min()) > 0.8


def test_share_inside_the_mask() -> None:
    shares = np.zeros(SIZE, dtype=np.float32)
    shares[:8, :16] = 1
    shares[40:, :16] = 1
    assert inside_share(shares, Drawing(box_mask(0, 0), 7, "")) == pytest.approx(0.5)
    assert inside_share(shares, None) == 0
    assert inside_share(np.zeros(SIZE), Drawing(box_mask(0, 0), 7, "")) == 0


def test_heat_lies_where_it_was_read_and_the_outline_has_the_tracks_colour() -> None:
    shares = np.zeros(SIZE, dtype=np.float32)
    shares[2:14, 2:14] = 1
    image = np.full((*SIZE, 3), 90, dtype=np.uint8)
    mask = Drawing(box_mask(16, 32), 7, "")
    painted = HeatPainter(SIZE).paint(image, shares, mask).astype(int)
    assert (image == 90).all()
    assert np.ptp(painted[40:, :20], axis=2).max() == 0  # grey and dimmed where nothing was read
    assert painted[40:, :20].max() < 90
    assert painted[8, 8].sum() > 3 * 150
    assert painted[16, 40].tolist() == list(track_color(7))
    assert painted[24, 40].tolist() == painted[40, 10].tolist()  # no tint inside
    assert HeatPainter(SIZE, scale=3).paint(image, shares, None).shape == (144, 192, 3)


def test_colour_bar_goes_from_grey_to_bright() -> None:
    bar = np.asarray(color_bar(200, "", "", (0, 0, 0))).astype(int)
    row = bar[8, 11:189]
    assert np.ptp(row[0]) < 5
    assert row[-1].sum() > row[0].sum() + 200
