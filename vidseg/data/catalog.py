"""Names of data sets: what ``DATASETS.TRAIN`` and ``DATASETS.TEST`` may hold.

A name stands for a function that reads the records, and for metadata (classes, files, evaluator).
The published names and the embedded data sets are registered on the first lookup, those of projects
when a name is unknown; the path of a json file, of a folder of videos or features, or of a file
that a project knows how to read is a name too.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseg.errors import DataError, nearest

from .path_formats import PathFormat, is_path, join_options, split_options

__all__ = ["Catalog", "DatasetCatalog", "Metadata", "Record", "Records", "dataset_root", "is_path"]

Record = dict[str, Any]
"""One video: ``file_names``, ``height``, ``width``, ``length``, ``video_id``, ``json_file`` and,
where annotated, ``annotations``: per frame, a list of objects with contiguous ``category_id``. A
video in one file has a ``video_file`` and no ``file_names``: see ``video_folder``. A generated
video has no ``json_file``, its ``file_names`` are empty, and other keys tell its mapper
what to make. Or one document, a sequence of feature vectors: see
``features.load_feature_index``."""


class Records(list[Record]):
    """The records of a data set together with the classes that were found in its file.

    Args:
        records: one per video (or image).
        classes: names by contiguous class number.
        category_ids: ids of the data set by contiguous class number.
        annotated: whether the file holds annotations at all (test splits do not).
        image_root: folder of the frames, ``""`` if unknown.
        damaged: what is wrong with records whose frames are not all there, by ``video_id``.
        about: fields of ``Metadata`` that the files know better than whoever registered the set.
    """

    def __init__(
        self,
        records: Sequence[Record] = (),
        *,
        classes: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        annotated: bool = True,
        image_root: str = "",
        damaged: Mapping[Any, str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(records)
        self.about = dict(about or {})
        self.image_root = image_root
        self.damaged = dict(damaged or {})
        self.classes = list(classes)
        self.category_ids = list(category_ids)
        self.annotated = annotated


@dataclass(frozen=True)
class Metadata:
    """What is known about a data set besides its records.

    Args:
        name: the name in the catalog.
        classes: names by contiguous class number.
        category_ids: ids of the data set by contiguous class number.
        evaluator: name in the evaluator registry, ``""`` if the set cannot be scored.
        root: folder of the data set.
        json_file: annotation file, ``""`` if there is none.
        image_root: folder that the frame names are relative to.
        prepare: how to get the data, for error messages.
        family: whose category ids these are (``"coco"``, ``"ytvis_2019"``...), ``""`` if its own.
        item: what messages call a record.
        topics: names of the classes of whole documents, by contiguous number.
        feature_dim: width of the feature vectors, 0 for a set of frames.
    """

    name: str
    classes: list[str] = field(default_factory=list)
    category_ids: list[int] = field(default_factory=list)
    evaluator: str = "ytvis"
    root: str = ""
    json_file: str = ""
    image_root: str = ""
    prepare: str = ""
    family: str = ""
    item: str = "video"
    topics: list[str] = field(default_factory=list)
    feature_dim: int = 0


@dataclass
class _Entry:
    load: Callable[[], Sequence[Record]]
    metadata: Metadata
    was_read: bool = False
    # Records are large: kept only as long as somebody uses them.
    records: weakref.ref[Records] | None = None


class Catalog:
    """Maps names to data sets.

    Args:
        lazy_defaults: called with the catalog before its first lookup; registers the built-in sets.
        on_miss: called with the catalog and a name that it lacks; may register it, and gives
            remarks for the error message.
    """

    def __init__(
        self,
        lazy_defaults: Callable[[Catalog], None] | None = None,
        on_miss: Callable[[Catalog, str], Sequence[str]] | None = None,
    ) -> None:
        self._entries: dict[str, _Entry] = {}
        self._formats: list[PathFormat] = []
        self._lazy_defaults = lazy_defaults
        self._on_miss = on_miss

    def register(
        self,
        name: str,
        load: Callable[[], Sequence[Record]],
        *,
        override: bool = False,
        **metadata: Any,
    ) -> None:
        """Adds a data set.

        Args:
            name: what config files call it.
            load: reads the records; called when they are needed, possibly more than once.
            override: whether another data set of that name may be replaced.
            metadata: fields of ``Metadata``; paths relative to the data set root are completed when
                they are asked for. Classes that are left out are taken from the records.

        Raises:
            ValueError: if another function has that name, or a field of the metadata is unknown.
        """
        unknown = set(metadata) - set(Metadata.__dataclass_fields__)
        if unknown:
            raise ValueError(f"data set {name}: unknown metadata {sorted(unknown)}")
        taken = self._entries.get(name)
        if taken is not None and taken.load != load and not override:
            raise ValueError(f"data set {name!r} is registered already; pass override=True")
        self._entries[name] = _Entry(load, Metadata(name=name, **metadata))

    def register_format(self, path_format: PathFormat) -> None:
        """Adds a kind of files that a path may name, see ``path_formats``.

        Raises:
            ValueError: if another one has one of its suffixes.
        """
        for known in self._formats:
            taken = set(known.suffixes) & set(path_format.suffixes)
            if taken and known != path_format:
                raise ValueError(f"files {', '.join(sorted(taken))} have another format already")
        if path_format not in self._formats:
            self._formats.append(path_format)

    def get(self, name_or_path: str) -> Records:
        """Reads the records of a data set, by name or path.

        Raises:
            DataError: if the name is unknown, or any of the files is missing or broken.
        """
        records = self.read(name_or_path)
        for reason in records.damaged.values():
            raise DataError(reason)
        return records

    def read(self, name_or_path: str) -> Records:
        """Reads the records like ``get``, but tells missing frames in ``Records.damaged``.

        That is for who can do without some of the videos, as an evaluation can.

        Raises:
            DataError: if the name is unknown, the annotations are missing or broken, or there is no
                video with all its frames.
        """
        entry = self._entry(name_or_path)
        known = entry.records() if entry.records is not None else None
        if known is not None:
            return known
        loaded = entry.load()
        records = loaded if isinstance(loaded, Records) else _with_classes(loaded, entry.metadata)
        entry.records, entry.was_read = weakref.ref(records), True
        entry.metadata = replace(entry.metadata, **records.about)
        if records.classes:
            # The file has the last word on the class names.
            entry.metadata = replace(
                entry.metadata,
                classes=list(records.classes),
                category_ids=list(records.category_ids),
                image_root=records.image_root or entry.metadata.image_root,
            )
        return records

    def metadata(self, name_or_path: str) -> Metadata:
        """Gives the metadata, with absolute paths; reads the file only if too little is known.

        Raises:
            DataError: as ``get``.
        """
        entry = self._entry(name_or_path)
        has_classes = entry.metadata.classes and entry.metadata.category_ids
        if not (entry.was_read or has_classes or entry.metadata.feature_dim):
            self.read(name_or_path)
        return self.registered(name_or_path)

    def registered(self, name_or_path: str) -> Metadata:
        """Gives the metadata as far as it is known without reading a file.

        Raises:
            DataError: if the name is unknown.
        """
        known = self._entry(name_or_path).metadata
        return replace(
            known,
            root=_below_root(known.root),
            json_file=_below_root(known.json_file),
            image_root=_below_root(known.image_root),
        )

    def resolve(self, name_or_path: str) -> str:
        """Gives the catalog name of a data set; a path is registered on the way.

        A json file lists videos, images or documents. The frames of videos lie in the folder that
        its key ``image_root`` names (relative to the file), else in ``JPEGImages/`` or ``images/``
        beside it, else with it. A folder holds videos without labels (see ``video_folder``), or
        documents (see ``features``). Other files have a ``PathFormat``, and perhaps options.

        Raises:
            DataError: if it is neither a known name nor an existing file or folder.
        """
        self._fill()
        if name_or_path in self._entries:
            return name_or_path
        if is_path(name_or_path):
            return self._register_path(name_or_path)
        remarks = self._on_miss(self, name_or_path) if self._on_miss is not None else ()
        if name_or_path in self._entries:
            return name_or_path
        # Last, so that a name means the same whatever folders there are.
        found = _existing_path(split_options(name_or_path)[0])
        if found.is_dir() or (found.is_file() and self._format_of(name_or_path) is not None):
            return self._register_path(name_or_path)
        raise DataError("; ".join([self._miss_message(name_or_path), *remarks]))

    def require(self, name_or_path: str) -> None:
        """Checks that a data set is there, as far as that shows without reading it.

        Raises:
            DataError: if the name is unknown, or its files are missing.
        """
        require = getattr(self._entry(name_or_path).load, "require", None)
        if require is not None:
            require()

    def names(self) -> list[str]:
        """Gives all names, sorted."""
        self._fill()
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        """Tells whether a name, or the format of a path, is known without loading projects."""
        self._fill()
        if name in self._entries:
            return True
        return isinstance(name, str) and is_path(name) and self._format_of(name) is not None

    def _entry(self, name_or_path: str) -> _Entry:
        return self._entries[self.resolve(name_or_path)]

    def _fill(self) -> None:
        if self._lazy_defaults is not None:
            fill, self._lazy_defaults = self._lazy_defaults, None
            fill(self)

    def _register_path(self, path: str) -> str:
        from .features import INDEX_NAME, FeatureFolder
        from .video_folder import VideoFolder, holds_videos
        from .ytvis import JsonFile

        given, options = split_options(path)
        found = _existing_path(given)
        if not found.exists():
            kind = "file" if given.endswith(".json") else "file or folder"
            raise DataError(f"DATASETS: no such {kind}: {given}")
        if not found.is_dir() and not given.endswith(".json"):
            if self._on_miss is not None and path not in self:
                self._on_miss(self, path)
            path_format = self._format_of(path)
            if path_format is not None:
                return self._register_file(path_format, found, options)
        if options:
            raise DataError(f"DATASETS: {given} takes no options, but {path!r} gives some")
        name = str(found.resolve())
        if name in self._entries:
            return name
        index = Path(name, INDEX_NAME)
        if found.is_dir() and not index.is_file() and holds_videos(found):
            self.register(name, VideoFolder(name), evaluator="", root=name)
        elif found.is_dir():
            json_file = str(index) if index.is_file() else ""
            self.register(name, FeatureFolder(name), evaluator="", root=name, json_file=json_file)
        else:
            self.register(name, JsonFile(name), root=str(Path(name).parent), json_file=name)
        return name

    def _register_file(self, path_format: PathFormat, file: Path, options: dict[str, str]) -> str:
        path_format.check_options(str(file), options)
        # A link is not followed: what belongs to a file is looked for beside its name.
        path = os.path.abspath(file)
        name = join_options(path, options)
        if name not in self._entries:
            about = {"root": str(Path(path).parent), **path_format.metadata}
            self.register(name, path_format.reader(path, options), **about)
        return name

    def _format_of(self, name: str) -> PathFormat | None:
        path = split_options(name)[0]
        return next((known for known in self._formats if path.endswith(known.suffixes)), None)

    def _miss_message(self, name: str) -> str:
        known = [other for other in self.names() if not is_path(other)]
        close = nearest(name, known) or [other for other in known if name.lower() in other][:3]
        hint = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"
        return (
            f"DATASETS: no data set is called {name!r}; {hint}; "
            "or give the path of a json file (YouTube-VIS, COCO, an index of documents), of a "
            "folder of videos or features, or of a file that a project reads"
        )


def dataset_root() -> Path:
    """Folder that holds the public data sets: ``$VIDSEG_DATASETS``, else ``datasets``.

    ``$DETECTRON2_DATASETS``, which the published code reads, counts when the former is not set.
    """
    named = os.environ.get("VIDSEG_DATASETS") or os.environ.get("DETECTRON2_DATASETS")
    return Path(named or "datasets").expanduser()


def _existing_path(path: str) -> Path:
    """Gives the path, or where it is below the data set root if it is there."""
    given = Path(path).expanduser()
    below = dataset_root() / given
    return below if below.exists() and not given.exists() else given


def _below_root(path: str) -> str:
    return str(dataset_root() / path) if path else ""


def _with_classes(loaded: Sequence[Record], metadata: Metadata) -> Records:
    ids = metadata.category_ids or range(1, len(metadata.classes) + 1)
    annotated = all("annotations" in record for record in loaded)
    return Records(loaded, classes=metadata.classes, category_ids=list(ids), annotated=annotated)


def _register_builtin(catalog: Catalog) -> None:
    from .builtin import register_builtin

    register_builtin(catalog)


def _load_projects(catalog: Catalog, name: str) -> list[str]:
    from vidseg.plugins import load_until_known

    return load_until_known(name, catalog)


DatasetCatalog = Catalog(_register_builtin, _load_projects)
"""The one catalog of the process; config files name what it holds."""
