"""Peak memory of a long video against that of a short one: how it grows with the length.

Both are R50 models with 100 frame queries on frames of 64x96, with tracks (``long_video``); at a
small frame size the model itself is the larger part, so that 200 frames already fill the bound of
the keepings (``MODEL.REFINER.MEMORY_MB``, 64 by default) as far as they will.
"""

from __future__ import annotations

from .case import Case, Run

__all__ = ["CASES"]

_SIZE = (64, 96)


def _offline(num_frames: int) -> Run:
    from .long_video import prepare_predict

    return prepare_predict("offline", num_frames, _SIZE)


def _stream(num_frames: int) -> Run:
    from .long_video import prepare_stream

    return prepare_stream(num_frames, _SIZE)


CASES = (
    Case(
        name="offline_growth",
        about="DVIS_DAQ_offline over 800 frames of 64x96, a whole result",
        peer="the same over 200 frames",
        bars={"peak": 1.15},
        ours=lambda: _offline(800),
        theirs=lambda: _offline(200),
        repeats=1,
        warmups=0,
    ),
    Case(
        name="online_growth",
        about="DVIS_DAQ_online over a stream of 3,000 frames of 64x96",
        peer="the same over 200 frames",
        bars={"peak": 1.02},
        ours=lambda: _stream(3000),
        theirs=lambda: _stream(200),
        repeats=1,
        warmups=0,
    ),
)
