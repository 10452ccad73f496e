"""A timeline as a picture: a band per row of labels, the attention of tokens below, a legend.

Shapes: L frames, T frames the model saw, M tokens, W pixels.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg.video.draw import track_color
from vidseg.video.images import save_image

from .metrics import count_video, find_segments, summary
from .timeline import ACTION, TITLES, TRUTH, Ints, Timeline

__all__ = ["draw_timeline", "save_timeline"]

Color = tuple[int, int, int]

_WIDTH, _MARGIN, _GAP = 1500, 20, 9
_BAND, _STRIPE, _TOKEN = 30, 4, 14  # heights of labels, of the errors below them, of a token
_GAMMA = 0.75  # of attention: below 1, so that weak one shows as well
_MAX_TOKENS = 32
_CUT_ROOM = 12  # pixels between true cuts on average, above which they are drawn over attention
_GUTTER = 210  # width of what stands on the left, at most
_LEGEND = 300  # width of an entry of the legend, at most
_BIG, _NORMAL, _SMALL = 17, 13, 11  # sizes of text
_SCORES = ("Acc", "Edit", "F1@50")
_SCORE = 50  # width of one
_BARE = {ACTION: "no token found an action"}  # what a row without any label says

_PAPER, _PANEL, _TEXT, _FAINT = (24, 24, 28), (40, 40, 46), (217, 217, 222), (145, 145, 152)
_BACKGROUND, _WRONG, _GRID = (92, 92, 100), (240, 60, 60), (70, 70, 78)
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds from one to the next
_TICK_ROOM = 75  # pixels from one to the next, at least


def save_timeline(path: Path, timeline: Timeline) -> None:
    """Writes a timeline as a png file, with its folder.

    Raises:
        DataError: if it cannot be written.
    """
    save_image(draw_timeline(timeline), path)


def draw_timeline(timeline: Timeline) -> Image.Image:
    """Draws the rows of a timeline below each other.

    Every class has the colour of its number and background is grey; a stripe below a prediction is
    red where it is wrong. Tokens come in the order of the time that they attend to; those of no
    action are left out.
    """
    return _Painter(timeline).draw()


class _Painter:
    """Draws one timeline from top to bottom.

    Args:
        timeline: what to draw.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.rows = [name for name in TITLES if name in timeline.rows]
        self.tokens, self.num_left_out = _shown_tokens(timeline)
        self.truth = timeline.rows.get(TRUTH)
        titles = [TITLES[name] for name in self.rows]
        titles += [timeline.name_of(number) for number in self._token_classes()]
        gutter = min(_GUTTER, max(_length(title, _NORMAL) for title in titles)) + 12
        self.left = _MARGIN + gutter
        self.right = _WIDTH - _MARGIN
        self.has_scores = self.truth is not None and len(self.rows) > 1
        if self.has_scores:
            self.right -= len(_SCORES) * _SCORE + 4
        self.shown = _shown_classes(timeline)
        names = [self._entry_of(number) for number in self.shown]
        widest = min(_LEGEND, max((_length(name, _NORMAL) for name in names), default=0) + 40)
        self.columns = max(1, (_WIDTH - 2 * _MARGIN) // widest)
        self.entry = (_WIDTH - 2 * _MARGIN) // self.columns

    def draw(self) -> Image.Image:
        """Gives the picture."""
        bands = len(self.rows) * (_BAND + _STRIPE + _GAP)
        heat = (len(self.tokens) * _TOKEN + 30 + 26) if len(self.tokens) else 0
        legend = -(-len(self.shown) // self.columns) * 21
        height = _MARGIN + 34 + bands + 30 + heat + legend + _MARGIN
        self.image = Image.new("RGB", (_WIDTH, height), _PAPER)
        self.pen = ImageDraw.Draw(self.image)
        y = self._draw_title(_MARGIN)
        for name in self.rows:
            y = self._draw_row(name, y)
        y = self._draw_axis(y - _GAP + 2) + 8
        if len(self.tokens):
            y = self._draw_tokens(y)
        self._draw_legend(y)
        return self.image

    def _draw_title(self, y: int) -> int:
        timeline = self.timeline
        length = f"{timeline.num_frames} frame" + "s" * (timeline.num_frames != 1)
        if timeline.frame_rate:
            seconds = timeline.num_frames / timeline.frame_rate
            length += f", {_clock(seconds)} min" if seconds >= 60 else f", {seconds:.1f} s"
        room = self.right - self.left - _length(length, _NORMAL) - 30
        title = _shorten(timeline.name, _BIG, room)
        self._text((self.left, y), title, _BIG, _TEXT, "la")
        place = (self.left + _length(title, _BIG) + 14, y + 4)
        self._text(place, length, _NORMAL, _FAINT, "la")
        if self.has_scores:
            for x, name in zip(self._score_places(), _SCORES, strict=True):
                self._text((x, y + 5), name, _SMALL, _FAINT, "ra")
        return y + 34

    def _draw_row(self, name: str, y: int) -> int:
        labels = self.timeline.rows[name]
        middle = y + _BAND // 2
        self._text((self.left - 12, middle), TITLES[name], _NORMAL, _TEXT, "rm")
        self.pen.rectangle((self.left, y, self.right - 1, y + _BAND - 1), fill=_PANEL)
        runs = zip(*find_segments(labels), strict=True)
        # Long ones first: one of less than a pixel would be painted over by the next.
        for action, start, stop in sorted(runs, key=lambda run: run[1] - run[2]):
            if action < 0:
                continue
            first, last = self._x(start), max(self._x(start) + 1, self._x(stop))
            color = self._color(int(action))
            self.pen.rectangle((first, y, last - 1, y + _BAND - 1), fill=color)
            if last - first > 3:  # neighbours may look alike
                self.pen.line((last - 1, y, last - 1, y + _BAND - 1), fill=_PAPER)
            text = self.timeline.name_of(int(action))
            if _length(text, _SMALL) + 8 <= last - first:
                ink = (16, 16, 20) if _is_light(color) else (245, 245, 248)
                self._text(((first + last) // 2, middle), text, _SMALL, ink, "mm")
        if not (labels >= 0).any():
            place = ((self.left + self.right) // 2, middle)
            self._text(place, _BARE.get(name, "no class"), _SMALL, _FAINT, "mm")
        if self.truth is not None and name != TRUTH:
            self._draw_errors(labels, self.truth, y + _BAND + 1)
            self._draw_scores(labels, self.truth, middle)
        return y + _BAND + _STRIPE + _GAP

    def _draw_errors(self, labels: Ints, truth: Ints, y: int) -> None:
        """Marks the frames where labels differ from the truth, if that is known there."""
        wrong = (labels != truth) & (truth >= 0)
        for is_wrong, start, stop in zip(*find_segments(wrong), strict=True):
            if is_wrong:
                first, last = self._x(start), max(self._x(start) + 1, self._x(stop))
                self.pen.rectangle((first, y, last - 1, y + _STRIPE - 1), fill=_WRONG)

    def _draw_scores(self, labels: Ints, truth: Ints, middle: int) -> None:
        timeline = self.timeline
        left_out = () if timeline.eval_bg else timeline.background
        counts = count_video(labels, truth, len(timeline.classes), left_out)
        scores = summary(counts, left_out)
        for x, name in zip(self._score_places(), _SCORES, strict=True):
            value = scores[name]
            text = "-" if math.isnan(value) else f"{value:.1f}"
            self._text((x, middle), text, _NORMAL, _TEXT, "rm")

    def _draw_axis(self, y: int) -> int:
        timeline = self.timeline
        rate = timeline.frame_rate
        self.pen.line((self.left, y, self.right - 1, y), fill=_GRID)
        for frame, text in _ticks(timeline.num_frames, rate, self.right - self.left):
            x = self._x(frame)
            self.pen.line((x, y, x, y + 4), fill=_FAINT)
            self._text((x, y + 6), text, _SMALL, _FAINT, "ma")
        self._text((self.left - 20, y + 6), "time" if rate else "frame", _SMALL, _FAINT, "ra")
        return y + 22

    def _draw_tokens(self, y: int) -> int:
        """Draws a heat row per token, in the colour of its class."""
        attention = self.timeline.attention
        assert attention is not None
        note = "attention of the action tokens (the brighter, the more of a frame's attention)"
        if self.num_left_out:
            note += f"; {self.num_left_out} weaker tokens are left out"
        shown = attention.weights[:, self.tokens].sum() / max(attention.weights.sum(), 1e-12)
        note += f"; these hold {100 * shown:.0f} % of all"
        self._text((self.left, y), note, _SMALL, _FAINT, "la")
        y += 18
        top = y
        heat = _resize(attention.weights[:, self.tokens], self.right - self.left)
        for weights, action in zip(heat.T, self._token_classes(), strict=True):
            is_background = action in self.timeline.background
            color = np.array(_FAINT if is_background else track_color(action))  # grey would drown
            paper = np.array(_PANEL)
            share = weights.clip(0, 1)[:, None] ** _GAMMA
            line = (paper + share * (color - paper)).round().astype(np.uint8)
            strip = np.broadcast_to(line, (_TOKEN - 1, *line.shape))
            self.image.paste(Image.fromarray(np.ascontiguousarray(strip)), (self.left, y))
            text = _shorten(self.timeline.name_of(action), _SMALL, self.left - _MARGIN - 12)
            self._text((self.left - 12, y + _TOKEN // 2), text, _SMALL, _FAINT, "rm")
            y += _TOKEN
        cuts = [] if self.truth is None else find_segments(self.truth).starts[1:].tolist()
        if len(cuts) * _CUT_ROOM < self.right - self.left:
            for x in map(self._x, cuts):
                for dot in range(top, y - 1, 4):
                    self.pen.line((x, dot, x, dot + 1), fill=_FAINT)
        return self._draw_axis(y + 2) + 14

    def _draw_legend(self, y: int) -> None:
        for place, number in enumerate(self.shown):
            row, column = divmod(place, self.columns)
            x, top = _MARGIN + column * self.entry, y + 21 * row
            self.pen.rectangle((x, top + 2, x + 13, top + 15), fill=self._color(number))
            text = _shorten(self._entry_of(number), _NORMAL, self.entry - 34)
            self._text((x + 21, top + 9), text, _NORMAL, _TEXT, "lm")

    def _entry_of(self, number: int) -> str:
        """Gives the text of a class in the legend."""
        ending = " (unseen)" if number in self.timeline.unseen else ""
        return self.timeline.name_of(number) + ending

    def _text(
        self, place: tuple[int, int], text: str, size: int, color: Color, anchor: str
    ) -> None:
        self.pen.text(place, text, font=_font(size), fill=color, anchor=anchor)

    def _x(self, frame: int) -> int:
        width = self.right - self.left
        return self.left + int(frame) * width // max(self.timeline.num_frames, 1)

    def _color(self, number: int) -> Color:
        return _BACKGROUND if number in self.timeline.background else track_color(number)

    def _token_classes(self) -> list[int]:
        attention = self.timeline.attention
        return [] if attention is None else attention.classes[self.tokens].tolist()

    def _score_places(self) -> Iterator[int]:
        return (self.right + _SCORE * (number + 1) for number in range(len(_SCORES)))


def _shown_tokens(timeline: Timeline) -> tuple[np.ndarray, int]:
    """Gives the tokens of actions in the order of their mean time, and how many were too weak."""
    attention = timeline.attention
    if attention is None:
        return np.zeros(0, dtype=np.int64), 0
    mass = attention.weights.sum(0)
    kept = np.flatnonzero(attention.classes >= 0)
    strongest = kept[np.argsort(-mass[kept], kind="stable")][:_MAX_TOKENS]
    # Squares: what lies far from the peak would draw all tokens towards the middle.
    weights = np.square(attention.weights[:, strongest], dtype=np.float64)
    times = np.arange(len(weights)) @ weights / np.maximum(weights.sum(0), 1e-12)
    order = np.argsort(times, kind="stable")
    return strongest[order], len(kept) - len(strongest)


def _shown_classes(timeline: Timeline) -> list[int]:
    """Gives the classes of all rows and of the tokens, those of the truth first, as they come."""
    rows = [find_segments(timeline.rows[name]).classes for name in TITLES if name in timeline.rows]
    return [int(n) for n in dict.fromkeys(np.concatenate(rows).tolist()) if n >= 0]


def _ticks(num_frames: int, frame_rate: float, width: int) -> list[tuple[int, str]]:
    """Gives frames at round times, and their names; round numbers if the rate is unknown."""
    room = max(1, width // _TICK_ROOM)
    total = num_frames / frame_rate if frame_rate else float(num_frames)
    steps: Sequence[float] = _TICKS if frame_rate else _round_numbers(num_frames)
    step = next((one for one in steps if total / one <= room), steps[-1])
    times = np.arange(0, total + 1e-9, step).tolist()
    if frame_rate:
        return [(round(time * frame_rate), _clock(time)) for time in times]
    return [(round(time), f"{time:.0f}") for time in times]


def _round_numbers(limit: int) -> list[float]:
    return [factor * 10**power for power in range(len(str(limit)) + 1) for factor in (1, 2, 5)]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _resize(weights: np.ndarray, width: int) -> np.ndarray:
    """Brings ``(T, M)`` to ``(W, M)``; where frames share a pixel, the largest value counts."""
    length = len(weights)
    if length <= width:
        return np.asarray(weights[np.arange(width) * length // width])
    return np.maximum.reduceat(weights, np.arange(width) * length // width, axis=0)


def _is_light(color: Color) -> bool:
    return float(np.dot(color, (0.299, 0.587, 0.114))) > 110


@cache
def _length(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def _shorten(text: str, size: int, room: int) -> str:
    """Cuts as much out of the middle of a text as it takes to fit."""

    def cut(kept: int) -> str:
        head = (kept + 1) // 2
        return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - kept + head :]}"

    if _length(text, size) <= room:
        return text
    fitting = bisect(range(1, len(text)), room, key=lambda kept: _length(cut(kept), size))
    return cut(max(fitting, 1))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
