"""Makes a YouTube-VIS json file of an export "CVAT for video 1.1" or "CVAT for images 1.1".

Example:
    python datasets/prepare_cvat.py annotations.xml --images frames
    python datasets/prepare_cvat.py a.xml b.xml --images a_frames b_frames --out both.json

writes instances.json beside annotations.xml for the pictures in frames/, in natural order; of
several exports, each is a video. A track of a video export is an object. Tracks and shapes of one
label and one group id are the same object in all frames; a shape of neither track nor group is an
object in one frame. Polygons, rectangles, ellipses and masks are read, other shapes (points, lines,
cuboids, skeletons) left out and counted. Objects are absent from frames that a track leaves out;
CVAT writes all frames, other programs only those where something changes, so such tracks are named.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from vis_json import VisJson, add_output_options, image_size, paste, reason

from vidseg import rle
from vidseg.errors import DataError, UserError, run_command
from vidseg.video.images import list_images

_ELLIPSE_POINTS = 64
_AREAS = ("polygon", "box", "ellipse", "mask")
_OTHERS = ("polyline", "points", "cuboid", "skeleton")

Shape = tuple[str, str, int, ET.Element]  # object, label, place of the frame, element


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "xml_files", type=Path, nargs="+", metavar="XML", help="annotations.xml of an export"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, help="folder of the frames of each"
    )
    add_output_options(parser, "instances.json beside the first export")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Writes the file."""
    args = parse(arguments)
    if len(args.xml_files) != len(args.images):
        raise UserError(
            f"{len(args.xml_files)} exports, but {len(args.images)} folders in --images"
        )
    content = VisJson(args.classes)
    skipped: Counter[str] = Counter()
    for xml_file, images in zip(args.xml_files, args.images, strict=True):
        _add_video(content, xml_file, images, skipped)
    root = Path(os.path.commonpath([images.resolve() for images in args.images]))
    content.write(args.out or args.xml_files[0].with_name("instances.json"), root)
    if skipped:
        told = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(skipped.items()))
        print(f"left out, since they are no area: {told}")


def _add_video(content: VisJson, xml_file: Path, images: Path, skipped: Counter[str]) -> None:
    root = _read_xml(xml_file)
    if not images.is_dir():
        raise DataError(f"there is no folder {images}")
    frames = list_images(images)
    size = image_size(frames[0])
    video_id = content.add_video(frames, size)
    tracks = root.findall("track")
    if tracks:
        steps = _frame_step(root, xml_file)
        _tell_gaps(tracks, steps[1], xml_file)
        shapes = _of_tracks(tracks, steps, xml_file)
    else:
        shapes = _of_images(root, frames, size, xml_file)
    objects: dict[tuple[str, str], dict[int, list[rle.RLE]]] = defaultdict(dict)
    for name, label, place, element in shapes:
        where = f"{xml_file}: {name}, {label}"
        if element.tag not in _AREAS:
            skipped[element.tag] += 1
            continue
        if not label:
            raise DataError(f"{xml_file}: {name} has no label")
        if not 0 <= place < len(frames):
            raise DataError(
                f"{where}: frame {place} is not there: {images} has {len(frames)} pictures"
            )
        try:
            mask = _rasterise(element, size)
        except (KeyError, ValueError) as error:
            raise DataError(f"{where}: frame {place} cannot be read: {reason(error)}") from None
        objects[name, label].setdefault(place, []).append(mask)
    for (name, label), found in objects.items():
        masks = {place: rle.union(parts) for place, parts in found.items()}
        content.add_object(video_id, label, masks, f"{xml_file}: {name}")


def _tell_gaps(tracks: list[ET.Element], step: int, path: Path) -> None:
    """Names tracks that leave frames out although nothing says that the object is absent."""
    gaps = []
    for track in tracks:
        shapes = [(element.get("frame", ""), element.get("outside")) for element in track]
        known = [(int(frame), outside) for frame, outside in shapes if frame.isdecimal()]
        for (frame, outside), (after, _) in itertools.pairwise(known):
            if outside != "1" and after - frame > step:
                gaps.append(f"track {track.get('id')} after frame {frame}")
                break
    if gaps:
        print(
            f"{path}: {len(gaps)} tracks leave out frames, in which their objects count as absent, "
            f"such as {gaps[0]}"
        )


def _read_xml(path: Path) -> ET.Element:
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ET.ParseError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is not valid xml: {error}") from None
    if root.tag != "annotations":
        raise DataError(f"{path} is no CVAT export: it begins with <{root.tag}>")
    if root.find("meta/project") is not None:
        raise DataError(f"{path} is the export of a project; export its tasks one by one")
    return root


def _frame_step(root: ET.Element, path: Path) -> tuple[int, int]:
    """Gives first frame and step of the task: its frames keep the numbers of the recording."""
    for kind in ("task", "job"):
        start = root.findtext(f"meta/{kind}/start_frame") or "0"
        text = root.findtext(f"meta/{kind}/frame_filter") or ""
        if root.find(f"meta/{kind}") is None:
            continue
        try:
            return int(start), int(text.partition("step=")[2] or 1)
        except ValueError:
            raise DataError(f"{path}: frames from {start!r} by {text!r} are not known") from None
    return 0, 1


def _of_tracks(tracks: list[ET.Element], steps: tuple[int, int], path: Path) -> Iterator[Shape]:
    start, step = steps
    for track in tracks:
        # Shapes that are no track, as all masks, are tracks of one frame here.
        group = track.get("group_id", "")
        name = f"group {group}" if group else f"track {track.get('id', '')}"
        for element in track:
            if element.tag not in (*_AREAS, *_OTHERS) or element.get("outside") == "1":
                continue
            number = element.get("frame", "")
            if not number.isdecimal() or (int(number) - start) % step:
                raise DataError(
                    f"{path}: {name} has a shape at frame {number!r}, which the task lacks"
                )
            yield name, track.get("label", ""), (int(number) - start) // step, element


def _of_images(
    root: ET.Element, frames: list[Path], size: tuple[int, int], path: Path
) -> Iterator[Shape]:
    places = {frame.name: place for place, frame in enumerate(frames)}
    single = itertools.count(1)
    images = root.findall("image")
    if not images:
        raise DataError(f"{path} has neither tracks nor images")
    for image in images:
        file = image.get("name", "")
        place = places.get(Path(file).name, places.get(Path(file.replace("\\", "/")).name))
        shapes = [element for element in image if element.tag in (*_AREAS, *_OTHERS)]
        if place is None and shapes:
            raise DataError(f"{path}: there is no picture {file!r}; name the folder with --images")
        stated = (image.get("height"), image.get("width"))
        if shapes and stated != (str(size[0]), str(size[1])):
            raise DataError(f"{path}: {file} has {stated} rows and columns, the pictures {size}")
        for element in shapes:
            group = element.get("group_id", "")
            name = f"group {group}" if group else f"shape {next(single)}"
            assert place is not None
            yield name, element.get("label", ""), place, element


def _rasterise(element: ET.Element, size: tuple[int, int]) -> rle.RLE:
    """Gives the mask of a shape.

    Raises:
        KeyError: if an attribute is missing.
        ValueError: if one is no number, or the shape is none.
    """
    values = element.attrib
    if element.tag == "mask":
        left, top, width, height = (int(values[key]) for key in ("left", "top", "width", "height"))
        runs = [int(run) for run in values["rle"].split(",")]
        if min(runs) < 0 or sum(runs) != width * height:
            raise ValueError(f"its runs cover {sum(runs)} of {width * height} pixels")
        # Row by row, beginning with the background.
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        return rle.encode(paste(pixels, left, top, size))
    if element.tag == "polygon":
        points = [float(n) for pair in values["points"].split(";") for n in pair.split(",")]
    elif element.tag == "box":
        x0, y0, x1, y1 = (float(values[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        points = _turned([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], values)
    else:
        cx, cy, rx, ry = (float(values[key]) for key in ("cx", "cy", "rx", "ry"))
        angles = [2 * math.pi * k / _ELLIPSE_POINTS for k in range(_ELLIPSE_POINTS)]
        outline = [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]
        points = _turned(outline, values)
    if not all(map(math.isfinite, points)):
        raise ValueError("it has coordinates that are no finite numbers")
    return rle.from_polygons([points], *size)


def _turned(points: list[tuple[float, float]], values: dict[str, str]) -> list[float]:
    """Turns an outline about its centre by the angle of the shape, clockwise in degrees."""
    angle = math.radians(float(values.get("rotation", 0)))
    array = np.array(points)
    centre = (array.min(0) + array.max(0)) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned: list[float] = ((array - centre) @ turn + centre).ravel().tolist()
    return turned


if __name__ == "__main__":
    run_command(main)
