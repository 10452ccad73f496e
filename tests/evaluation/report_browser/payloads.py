"""Payloads of report pages made by hand: an ordinary one, and every odd one that can come."""

from __future__ import annotations

import base64
import io
import math
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Payload = dict[str, Any]
WIDTH, HEIGHT = 160, 90
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
LONG = "a name that somebody let grow " * 6 + "without_any_place_to_break_it_" * 4


def ordinary() -> Payload:
    """Gives a report of three classes, with pictures, frames left out and every state."""
    names = ["person", "giant_panda", "skateboard"]
    rows = [(names[i], [61.2 - 20 * i, 80.5, 66.0, 70.1, 12, 31 + i]) for i in range(3)]
    rows.append(("never seen", [None, None, None, None, 0, 4]))
    ranking = [
        {"id": str(i), "name": f"{i:04d}/street", "values": [12.5 + 7.25 * i, i % 3, 4 - i, 2 * i],
         "video": i if i < 2 else None}
        for i in range(5)
    ]  # fmt: skip
    return {
        "version": 1,
        "title": "Results on valid.json",
        "metric": "ytvis",
        "facts": [["ground truth", "valid.json"], ["results", "results.json"], ["vidseg", "0.1"]],
        "figures": [
            {"name": "AP", "value": 34.19, "unit": "%", "help": "mean over IoU 0.50 to 0.95"},
            {"name": "AP50", "value": 56.65, "unit": "%", "help": "at IoU 0.50"},
            {"name": "AP75", "value": 37.06, "unit": "%", "help": "at IoU 0.75"},
            {"name": "AR1", "value": 33.7, "unit": "%", "help": "one prediction per video"},
            {"name": "AR10", "value": 40.02, "unit": "%", "help": "ten predictions per video"},
            {"name": "APs", "value": None, "unit": "%", "help": "small objects"},
        ],
        "tables": [
            {"title": "Confusions", "columns": ["state", "frames", "share"],
             "rows": [["found", 812, 0.61], ["switched", 41, 0.03], ["missed", 290, None]]},
        ],
        "classes": {
            "columns": ["AP", "AP50", "AP75", "AR10", "tracks", "predictions"],
            "rows": [{"name": name, "values": values} for name, values in rows],
        },
        "curves": [
            curve(name, iou, height)
            for name, offset in [("all classes", 0), *((each, 5) for each in names)]
            for iou, height in (("0.50", 95 - offset), ("0.75", 70), ("0.50:0.95", 55 + offset))
        ],
        "ranking": {"columns": ["AP", "missed", "switched", "false"], "rows": ranking},
        "notes": ["The player holds 2 of 5 videos, the worst first.",
                  "A truth counts as found in a frame if a prediction overlaps it by IoU 0.5."],
        "classNames": names,
        "videos": [street(images=True), street(images=False, name="0001/street")],
    }  # fmt: skip


def curve(name: str, iou: str, height: float, seen: bool = True) -> Payload:
    recall = np.arange(101)
    falling = height * (1 - (recall / 100) ** 3) * (recall < height)
    scores = [round(1 - r / 110, 3) if r < height else None for r in range(101)]
    precision = [round(float(p), 2) for p in falling] if seen else [None] * 101
    return {"name": name, "iou": iou, "precision": precision, "scores": scores if seen else None}


def street(images: bool, name: str = "0000/street") -> Payload:
    """Gives a video of 24 frames, of which every second is shown."""
    length, shown = 24, range(0, 24, 2)
    walk = [disc(20 + 5 * f, 40, 18) for f in range(length)]
    panda = [disc(130 - 3 * f, 60, 14) for f in range(length)]
    crowd = [disc(80, 15, 12)] * length
    stray = [disc(30, 75, 9)] * length
    return {
        "id": "7",
        "name": name,
        "width": WIDTH,
        "height": HEIGHT,
        "length": length,
        "frames": [{"index": f, "image": picture(f) if images else None} for f in shown],
        "truth": [
            track("11", 0, "person 1", walk, shown, "ffffffffssssssffffmmmmff"),
            track("12", 1, "giant_panda 2", panda, shown, "..mmmmffffffffffffffff.."),
            {**track("13", 0, "person 3", crowd, shown, "f" * 23 + "."), "crowd": True},
        ],
        "predictions": [
            predicted("0", 0, "person", walk, shown, "ffffffff......ffff....ff", 0.91, 0),
            predicted("1", 0, "person", walk, shown, "........ssssss.xxx......", 0.5, None),
            predicted("2", 1, "giant_panda", panda, shown, "......ffffffffffffffff..", 0.77, 1),
            predicted("3", 2, "skateboard", stray, shown, "x" * length, 0.05, None),
            predicted("4", 0, "person", crowd, shown, "f" * 23 + ".", 0.4, 2),
            predicted("5", 0, "person", crowd, shown, "." * 12 + "f" * 11 + ".", 0.3, 2),
        ],
    }


def track(
    key: str, kind: int, label: str, masks: list[np.ndarray], shown: range, states: str
) -> Payload:
    there = [run_lengths(masks[f]) if states[f] != "." else None for f in shown]
    return {
        "id": key, "class": kind, "label": label, "crowd": False, "masks": there, "states": states
    }  # fmt: skip


def predicted(
    key: str, kind: int, label: str, masks: list[np.ndarray], shown: range, states: str,
    score: float | None, partner: int | None,
) -> Payload:  # fmt: skip
    moved = [np.roll(mask, 3, axis=1) for mask in masks]
    return {**track(key, kind, label, moved, shown, states), "score": score, "partner": partner}


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(columns - x, rows - y) < radius


def run_lengths(mask: np.ndarray) -> list[int]:
    """Gives the lengths of runs, row by row, beginning with the background."""
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    bounds = [0, *edges, mask.size]
    return [end - begin for begin, end in pairwise(bounds)]


def picture(frame: int) -> str:
    image = Image.new("RGB", (WIDTH, HEIGHT), (96, 120, 96))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 50, WIDTH, HEIGHT), fill=(110, 106, 100))
    draw.ellipse((2 + 5 * frame, 22, 38 + 5 * frame, 58), fill=(200, 170, 150))
    draw.ellipse((116 - 3 * frame, 46, 144 - 3 * frame, 74), fill=(235, 235, 235))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def empty() -> Payload:
    """Gives a report in which nothing was measured and nothing can be shown."""
    return {
        "version": 1, "title": "Nothing", "metric": "ytvis", "facts": [], "figures": [],
        "tables": [], "classes": None, "curves": [], "ranking": {"columns": [], "rows": []},
        "notes": [], "classNames": [], "videos": [],
    }  # fmt: skip


def undefined() -> Payload:
    """Gives a report of one class without truth: null wherever null may stand."""
    video = street(images=False)
    for each in video["predictions"]:
        each.update(partner=None, score=None, states=each["states"].replace("f", "x"))
    video.update(truth=[])
    frameless = {**street(images=False, name="no frame"), "frames": []}
    for each in (*frameless["truth"], *frameless["predictions"]):
        each["masks"] = []
    bare = {**street(images=False, name="no track"), "truth": [], "predictions": []}
    return {
        **empty(),
        "title": "One class, no truth",
        "figures": [{"name": "AP", "value": None, "unit": "%", "help": ""}],
        "tables": [{"title": "Sizes", "columns": ["size", "AP"], "rows": []},
                   {"title": "Ranges", "columns": ["range", "AP"], "rows": [["small", None]]}],
        "classes": {"columns": ["AP"], "rows": [{"name": "thing", "values": [None]}]},
        "curves": [curve("thing", "0.50", 0, seen=False)],
        "ranking": {"columns": ["AP"], "rows": [
            {"id": "7", "name": "only", "values": [None], "video": 0}]},
        "classNames": ["thing"],
        "videos": [video, frameless, bare],
    }  # fmt: skip


def crowded() -> Payload:
    """Gives 300 classes, 500 videos, 80 tracks, names without end, names that are markup."""
    names = [f"class_{i:03d}" for i in range(298)] + [LONG, HOSTILE]
    values = [[100 * math.sin(i) ** 2, 100 * math.cos(i) ** 2, i] for i in range(300)]
    ranking = [
        {"id": str(i), "name": LONG if i == 1 else HOSTILE if i == 2 else f"{i:05d}",
         "values": [0.2 * i, 500 - i, i % 7], "video": 0 if i == 0 else None}
        for i in range(500)
    ]  # fmt: skip
    length = 240
    shown = range(0, length, 40)
    spots = [disc(8 + 16 * (i % 10), 6 + 11 * (i // 10), 6) for i in range(80)]
    states = ["f" * (3 * i) + "m" * (length - 3 * i) for i in range(80)]
    truth = [
        track(str(i), i, names[-1 - i % 3], [spots[i]] * length, shown, states[i])
        for i in range(80)
    ]
    found = [
        predicted(str(i), i, f"class_{i:03d}", [spots[i]] * length, shown, "f" * length, 0.9, i)
        for i in range(60)
    ]
    strays = [
        predicted(str(60 + i), i, LONG, [spots[60 + i]] * length, shown, "x" * length, 0.1, None)
        for i in range(20)
    ]
    video = {
        "id": "0", "name": HOSTILE, "width": WIDTH, "height": HEIGHT, "length": length,
        "frames": [{"index": f, "image": None} for f in shown],
        "truth": truth, "predictions": found + strays,
    }  # fmt: skip
    return {
        **empty(),
        "title": HOSTILE,
        "facts": [["ground truth", LONG], ["results", HOSTILE]],
        "figures": [{"name": name, "value": 12.0, "unit": "%", "help": LONG}
                    for name in (LONG, HOSTILE)],
        "tables": [{"title": LONG, "columns": [f"column {i}" for i in range(30)],
                    "rows": [[HOSTILE, *[i / 7 for i in range(29)]]]}],
        "classes": {"columns": ["AP", "AP50", "tracks"], "rows": [
            {"name": n, "values": v} for n, v in zip(names, values, strict=True)]},
        "curves": [curve(name, "0.50", 90) for name in names],
        "ranking": {"columns": ["AP", "missed", "false"], "rows": ranking},
        "notes": [LONG, HOSTILE],
        "classNames": names,
        "videos": [video],
    }  # fmt: skip


def upright() -> Payload:
    """Gives a report of a video that is higher than wide; a part in the corner of a whole."""
    mask = np.zeros((160, 60), bool)
    mask[120:, 40:] = True
    whole = np.ones((160, 60), bool)
    truth = [
        {**track(name, 0, name, [pixels], range(1), "m"), "class": None}
        for name, pixels in (("corner", mask), ("whole", whole))
    ]
    video = {
        "id": "0", "name": "tower", "width": 60, "height": 160, "length": 1,
        "frames": [{"index": 0, "image": None}], "truth": truth, "predictions": [],
    }  # fmt: skip
    return {**empty(), "title": "Upright", "videos": [video]}


def label_maps() -> Payload:
    """Gives a report of another metric: fractions, no curves, tracks without scores."""
    video = street(images=True)
    for each in video["predictions"]:
        each["score"] = None
    return {
        **ordinary(),
        "title": "Regions and boundaries",
        "metric": "davis",
        "figures": [
            {"name": "J&F", "value": 0.8123, "unit": "", "help": "mean of region and boundary"},
            {"name": "J", "value": 0.8, "unit": "", "help": "region, Jaccard index"},
        ],
        "classes": None,
        "curves": [],
        "videos": [{**video, "frames": video["frames"][:1]}],
        "ranking": {"columns": ["J&F", "J", "F"], "rows": [
            {"id": "a", "name": "blackswan", "values": [0.5, 0.25, 0.75], "video": 0}]},
    }  # fmt: skip
