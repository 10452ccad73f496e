r"""Computes features of wav files: log-mel energies with context, projected to 1024 numbers.

Example:
    python datasets/prepare_audio_features.py my_speech datasets/my_speech_features

makes train/ and val/ with an index.json each, whose paths DATASETS.TRAIN and DATASETS.TEST take.
A topic is a folder of wav files unless rules say otherwise; in every topic, some recordings are
held out for val/ and never heard in train/. recordings.json beside the index tells what a document
consists of: [file, second it begins at, seconds].

A document is short recordings of one topic, drawn at random and joined, as long as --seconds. With
--documents cut, it is a part of one recording, which is cut into parts of that length instead.

Exit code 1 if wav files were left out, because they are empty or damaged; all others are used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from feature_folder import (
    FeatureFile,
    TopicRules,
    make_new_folder,
    number,
    report,
    write_index,
)
from log_mel import FRAME_RATE, WIDTH, hop_length, log_mel, spread
from wav_files import WavFile, find_wav_files

from vidseg.errors import DataError, run_command

_SHORTEST = 1.0  # seconds; what a cut leaves over is a document from this length on
_LONGEST_NAME = 200  # bytes
_FOLDER_RULE = r"(.+)/[^/]+$=\1"

Piece = tuple[int, int, int]  # number of a recording, first sample, number of samples


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wav_dir", type=Path, help="folder of wav files, at any depth")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument(
        "--topics",
        nargs="+",
        metavar="PATTERN=TOPIC",
        help=r"regular expression of the beginning of a path in WAV_DIR, and the topic, where \1 "
        "is its first group; the first rule that fits counts; a file without a topic is left out "
        "(default: the folder that it lies in)",
    )
    parser.add_argument(
        "--documents", choices=("joined", "cut"), default="joined", help="what they are (joined)"
    )
    parser.add_argument(
        "--seconds", type=number(float, 0.1), default=10.0, help="length of a document (10)"
    )
    parser.add_argument(
        "--val-share", type=number(float, 0, 1), default=0.3, help="held-out recordings (0.3)"
    )
    parser.add_argument(
        "--passes",
        type=number(float, 0),
        default=1.5,
        help="how often joined documents use the recordings of train/ (1.5)",
    )
    parser.add_argument(
        "--val-documents",
        type=number(int, 1),
        default=14,
        metavar="N",
        help="joined documents per topic of val/, and of train/ at least (14)",
    )
    parser.add_argument(
        "--sample-rate", type=int, default=8000, metavar="HZ", help="of all sound (8000)"
    )
    parser.add_argument("--seed", type=number(int, 0), default=1, help="of all draws (1)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Writes both parts."""
    args = parse(arguments)
    hop_length(args.sample_rate)
    failed = 0

    def write(folder: Path) -> None:
        nonlocal failed
        failed = _write_parts(folder, args)

    make_new_folder(args.out, write)
    print(f"all is in {args.out}")
    return 1 if failed else 0


def _write_parts(folder: Path, args: argparse.Namespace) -> int:
    """Writes train/ and val/; gives how many wav files failed."""
    topics, failed = _open_topics(args)
    names = ("train", "val") if args.val_share else ("train",)
    parts = [_Part(folder / name, args.sample_rate) for name in names]
    for index, topic in enumerate(topics):
        _write_topic(topic, index, parts, args)
    if not parts[0].documents:
        raise DataError(f"not one of the {failed} wav files in {args.wav_dir} can be used")
    if not parts[-1].documents:
        raise DataError(
            f"no topic of {args.wav_dir} has two recordings, of which one could be held out; "
            "give --val-share 0 or other --topics"
        )
    for part in parts:
        part.finish([topic.name for topic in topics])
        print(f"{part.folder.name}: {len(part.documents)} documents")
    longest = round(args.seconds * args.sample_rate)
    too_long = sum(length > longest for topic in topics for length in topic.lengths)
    if args.documents == "joined" and too_long:
        print(
            f"{too_long} recordings are longer than a document, which ends before they do; "
            "--documents cut uses them whole"
        )
    return failed


@dataclass(frozen=True)
class _Topic:
    """Recordings of one topic.

    Attributes:
        name: of the topic.
        paths: in the folder of wav files, sorted.
        files: what was found there, ``None`` for those left out.
        lengths: samples of each at the common rate, 0 for those left out.
    """

    name: str
    paths: list[str]
    files: list[WavFile | None]
    lengths: list[int]

    def draw(self, rng: np.random.Generator, val_share: float) -> list[list[int]]:
        """Draws the recordings for train/ and val/; one that is left out changes no other's place.

        A topic of one recording has none for val/.
        """
        count = len(self.paths)
        order = rng.permutation(count).tolist()
        num_held = min(max(1, round(count * val_share)), count - 1) if val_share else 0
        held = set(order[:num_held])
        return [[i for i in range(count) if (i in held) == is_val] for is_val in (False, True)]


def _open_topics(args: argparse.Namespace) -> tuple[list[_Topic], int]:
    """Opens all files that have a topic; gives the topics by name and how many files failed."""
    rules = TopicRules(args.topics or [_FOLDER_RULE, f".*={args.wav_dir.resolve().name}"])
    topics: dict[str, _Topic] = {}
    failed = without = 0
    for path in find_wav_files(args.wav_dir):
        name = rules.topic_of(path)
        if not name:
            without += 1
            continue
        topic = topics.setdefault(name, _Topic(name, [], [], []))
        file = None
        try:
            file = WavFile.open(args.wav_dir / path)
        except DataError as error:
            report(error)
            failed += 1
        topic.paths.append(path)
        topic.files.append(file)
        topic.lengths.append(file.num_samples(args.sample_rate) if file else 0)
    if not topics:
        raise DataError(
            f"none of the {without} wav files in {args.wav_dir} fits a rule of --topics"
        )
    if without:
        print(f"{without} wav files have no topic")
    _check_names(topics)
    return [topics[name] for name in sorted(topics)], failed


def _check_names(topics: Iterable[str]) -> None:
    """Checks that every topic gives its documents file names of their own."""
    owners: dict[str, str] = {}
    for topic in topics:
        name = _file_name(topic)
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise DataError(f"topic {topic!r} is too long a name for files; give other --topics")
        if owners.setdefault(name, topic) != topic:
            raise DataError(
                f"the topics {owners[name]!r} and {topic!r} would have files of the same names; "
                "give other --topics"
            )


def _file_name(topic: str) -> str:
    return topic.replace("/", "_")


class _Part:
    """One of train/ and val/.

    Args:
        folder: of the files.
        rate: sampling rate of all sound.

    Attributes:
        documents: their entries in the index.
    """

    def __init__(self, folder: Path, rate: int) -> None:
        self.folder = folder
        self.documents: list[dict[str, Any]] = []
        self._rate = rate
        self._recordings: dict[str, list[Any]] = {}
        folder.mkdir()

    def write(self, topic: _Topic, number: int, pieces: list[Piece]) -> None:
        """Computes and writes one document."""
        sounds = []
        for index, start, count in pieces:
            wav = topic.files[index]
            assert wav is not None, "nothing was read of those left out"
            sounds.append(wav.read(self._rate, start, count))
        features = spread(log_mel(np.concatenate(sounds), self._rate))
        key = f"{_file_name(topic.name)}_{number:03d}"
        with FeatureFile(self.folder / f"{key}.npy", "<f2") as file:
            file.append(features)
        self.documents.append(
            {"id": key, "path": f"{key}.npy", "topic": topic.name, "length": len(features)}
        )
        self._recordings[key] = [
            [topic.paths[index], start / self._rate, count / self._rate]
            for index, start, count in pieces
        ]

    def finish(self, topics: list[str]) -> None:
        """Writes what describes the files."""
        common = {"topics": topics, "frame_rate": FRAME_RATE, "feature_dim": WIDTH}
        write_index(self.folder, self.documents, **common)
        (self.folder / "recordings.json").write_text(json.dumps(self._recordings))


def _write_topic(topic: _Topic, index: int, parts: list[_Part], args: argparse.Namespace) -> None:
    rng = np.random.default_rng((args.seed, index))
    longest = round(args.seconds * args.sample_rate)
    counts = []
    for part, members in zip(parts, topic.draw(rng, args.val_share), strict=False):
        lengths = {i: topic.lengths[i] for i in members}
        if args.documents == "cut":
            documents = _cut(lengths, longest, round(_SHORTEST * args.sample_rate))
        else:
            count = args.val_documents
            if part is parts[0]:
                count = max(count, math.ceil(sum(lengths.values()) / longest * args.passes))
            documents = _join(lengths, longest, count, rng)
        counts.append(0)
        for pieces in documents:
            part.write(topic, counts[-1], pieces)
            counts[-1] += 1
    seconds = sum(topic.lengths) / args.sample_rate
    numbers = " + ".join(str(count) for count in counts)
    print(
        f"{topic.name}: {len(topic.paths)} recordings, {seconds:.0f} s, {numbers} documents",
        flush=True,
    )


def _join(
    lengths: dict[int, int], longest: int, count: int, rng: np.random.Generator
) -> Iterator[list[Piece]]:
    """Joins recordings in random order; all are used before any comes again."""
    if not any(lengths.values()):
        return
    queue: list[int] = []
    for _ in range(count):
        pieces = []
        missing = longest
        while missing > 0:
            queue = queue or rng.permutation(list(lengths)).tolist()
            index = queue.pop()
            length = min(lengths[index], missing)
            if length:
                pieces.append((index, 0, length))
            missing -= length
        yield pieces


def _cut(lengths: dict[int, int], longest: int, shortest: int) -> Iterator[list[Piece]]:
    """Cuts recordings; what is left over goes if it is very short and not the whole recording."""
    for index, length in lengths.items():
        for start in range(0, length, longest):
            count = min(longest, length - start)
            if count >= shortest or start == 0:
                yield [(index, start, count)]


if __name__ == "__main__":
    run_command(main)
