"""Timelines: rows at the rate of the video, tables of segments, and pictures that show them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.projects.fact_clip.prediction_ground import (
    CLASSES,
    make_prediction,
    make_sample,
    match_text,
    segments,
)
from vidseg.errors import DataError, UserError
from vidseg.projects.fact_clip.segments_csv import read_results, read_segments, write_segments
from vidseg.projects.fact_clip.timeline import (
    ACTION,
    FRAME,
    MERGED,
    TRUTH,
    ZERO_SHOT,
    Timeline,
    TokenAttention,
)
from vidseg.projects.fact_clip.timeline_drawing import draw_timeline, save_timeline
from vidseg.video.draw import track_color

TRUE = segments((0, 10), (1, 30), (2, 40), (0, 20))
WRONG = segments((0, 10), (1, 40), (3, 30), (0, 20))
RED = (240, 60, 60)


def usual(**changes: object) -> Timeline:
    rows = {TRUTH: TRUE, FRAME: WRONG, ACTION: np.where(WRONG == 3, -1, WRONG), MERGED: TRUE}
    values = {"name": "P03_cereals", "classes": CLASSES, "rows": rows, "background": [0], **changes}
    return Timeline(**values)  # type: ignore[arg-type]


def test_rows_are_brought_to_the_frames_of_the_video() -> None:
    prediction = make_prediction(segments((1, 3), (2, 2)), action=np.array([1, 1, -1, -1, 2]))
    sample = make_sample("a", segments((1, 6), (-100, 1), (2, 3)), 10, rate=2)
    timeline = Timeline.of({**sample, "frame_rate": 7.5}, prediction, CLASSES, [0])
    assert timeline.rows[TRUTH].tolist() == [1] * 6 + [-1] + [2] * 3
    assert timeline.rows[MERGED].tolist() == [1] * 6 + [2] * 4
    assert timeline.rows[ACTION].tolist() == [1] * 4 + [-1] * 4 + [2] * 2
    assert timeline.frame_rate == 15
    assert np.allclose(timeline.scores, [0.8, 0.8])


def test_a_video_without_labels_has_the_length_of_its_frames() -> None:
    prediction = make_prediction(np.array([1, 1, 2]))
    timeline = Timeline.of(make_sample("a", None, 8, rate=3), prediction, CLASSES[:3])
    assert TRUTH not in timeline.rows
    assert timeline.classes == [*CLASSES[:3], "class 3"]
    assert timeline.rows[MERGED].tolist() == [1, 1, 1, 1, 1, 1, 2, 2]


def test_names_of_a_zero_shot_vocabulary_are_matched_with_the_classes() -> None:
    prediction = make_prediction(np.array([1, 2, 3]))
    prediction.zero_shot = match_text(
        np.array([0, 1, 2]), ["stir", "fry egg", "take bowl"], [True, False, True]
    )
    timeline = Timeline.of(make_sample("a", None, 3), prediction, CLASSES)
    assert timeline.rows[ZERO_SHOT].tolist() == [3, 4, 1]
    assert timeline.name_of(4) == "fry egg"
    assert timeline.unseen == [4]
    assert timeline.attention is not None
    assert timeline.attention.classes.tolist() == [0, 1, 2, 3, -1]  # not the fifth name
    again = Timeline.from_json(json.loads(json.dumps(timeline.to_json(4))), CLASSES)
    assert again.classes == [*CLASSES, "fry egg"]
    assert {k: v.tolist() for k, v in again.rows.items()} == {
        k: v.tolist() for k, v in timeline.rows.items()
    }


def test_segments_are_read_as_they_were_written(tmp_path: Path) -> None:
    timeline = usual(frame_rate=15.0, scores=[0.5, 0.75, 0.25, 1.0], name="P03/cam 1")
    path = timeline.path_in(tmp_path, "csv")
    write_segments(path, timeline)
    lines = path.read_text().splitlines()
    assert lines[1] == "truth,0,0,9,0.0000,0.6667,0,background,"
    assert lines[-2] == "merged,2,40,79,2.6667,5.3333,2,pour milk,0.2500"
    again = read_segments(path)
    assert (again.name, again.frame_rate, again.scores) == ("P03/cam 1", 15.0, timeline.scores)
    for name, row in timeline.rows.items():
        assert again.rows[name].tolist() == row.tolist()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("merged,0,0,x,,,1,take bowl,", "line 2: invalid literal"),
        ("merged,0,9,3,,,1,take bowl,", "line 2: a segment .* frames 9 to 3"),
        ("average,0,0,3,,,1,take bowl,", "line 2: 'average' is no row; known: truth"),
        ("merged,0,0", "line 2: columns are missing"),
        ("", "holds no segments"),
    ],
)
def test_a_damaged_table_is_told_by_its_line(tmp_path: Path, line: str, text: str) -> None:
    path = tmp_path / "a.csv"
    write_segments(path, usual())
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
    with pytest.raises(DataError, match=text):
        read_segments(path)


def test_results_tell_which_videos_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder of an evaluation"):
        next(read_results(tmp_path))
    write_segments(usual().path_in(tmp_path / "segments", "csv"), usual())
    with pytest.raises(UserError, match="no video 'P03_cereal'; nearest: P03_cereals"):
        next(read_results(tmp_path, ["P03_cereal"]))


def colors_of_row(image: Image.Image, title_rows: int) -> np.ndarray:
    """Pixels along the middle of a band, counted from the top."""
    return np.asarray(image)[20 + 34 + 43 * title_rows + 5]


def test_the_picture_shows_every_segment_and_marks_errors() -> None:
    image = draw_timeline(usual(frame_rate=15.0))
    truth, frame = colors_of_row(image, 0), colors_of_row(image, 1)
    widths = [int((truth == track_color(action)).all(1).sum()) for action in (1, 2, 3)]
    assert widths[0] == pytest.approx(0.75 * widths[1], abs=4)
    assert widths[2] == 0
    assert (frame == track_color(3)).all(1).sum() == pytest.approx(widths[0], abs=4)
    stripes = [
        int((np.asarray(image)[20 + 34 + 43 * row + 32] == RED).all(1).sum()) for row in range(4)
    ]
    assert stripes[0] == stripes[3] == 0
    assert stripes[1] == pytest.approx(widths[1], abs=4)  # 40 of 100 frames
    assert stripes[2] == pytest.approx(widths[1], abs=4)


def test_a_row_without_labels_says_so() -> None:
    image = draw_timeline(usual(rows={ACTION: np.full(50, -1), MERGED: np.full(50, 1)}))
    band = np.asarray(image)[20 + 34 : 20 + 34 + 30, 200:-200]
    assert len(np.unique(band.reshape(-1, 3), axis=0)) > 2  # the panel, and text on it


def test_short_segments_of_a_long_video_are_seen() -> None:
    labels = np.full(30_000, 1)
    labels[15_000] = 2
    image = draw_timeline(usual(rows={MERGED: labels}))
    assert (colors_of_row(image, 0) == track_color(2)).all(1).any()


def test_attention_adds_a_row_for_each_token_of_an_action() -> None:
    weights = np.full((50, 6), 1 / 6, dtype=np.float32)
    plain = draw_timeline(usual()).height
    heights = [
        draw_timeline(usual(attention=TokenAttention(weights, np.array(classes)))).height
        for classes in ([-1] * 6, [-1, -1, -1, -1, -1, 1], [-1, -1, -1, 2, 3, 1])
    ]
    assert heights[0] == plain
    assert heights[2] - heights[1] == 2 * 14


@pytest.mark.parametrize(
    "timeline",
    [
        usual(rows={TRUTH: np.zeros(1, dtype=np.int64), MERGED: np.zeros(1, dtype=np.int64)}),
        usual(rows={MERGED: np.full(5, -1)}),
        usual(name="a very long name " * 30, frame_rate=29.97),
        usual(
            classes=[
                f"class {number} with a very long name of many words" for number in range(300)
            ],
            rows={TRUTH: np.arange(300).repeat(40), MERGED: np.arange(300)[::-1].repeat(40)},
            frame_rate=0.5,
        ),
    ],
    ids=["one frame", "no label", "long name", "many classes"],
)
def test_pictures_of_odd_videos(tmp_path: Path, timeline: Timeline) -> None:
    path = tmp_path / "deep" / "a.png"
    save_timeline(path, timeline)
    with Image.open(path) as image:
        assert image.width == 1500
        assert 100 < image.height < 3000
