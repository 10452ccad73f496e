"""What a user points at to have features read: a file, a folder, an index or a data set."""

from __future__ import annotations

from pathlib import Path

from vidseg.errors import DataError, UserError

from .catalog import DatasetCatalog, Records
from .feature_files import SUFFIXES
from .features import load_feature_index

__all__ = ["read_documents"]


def read_documents(source: str, option: str = "--input") -> Records:
    """Finds sequences of features.

    Args:
        source: a folder of features, its index, a file of features, or a data set by name or path.
        option: that named it, for messages.

    Returns:
        The records; those of damaged files are among them.

    Raises:
        DataError: if there is none, not one is sound, or the data set is not of features.
    """
    path = Path(source)
    if not source:
        raise UserError(f"{option} is empty; name features")
    if path.suffix in SUFFIXES and path.is_file():
        only = {"documents": [{"id": path.stem, "path": path.name}]}
        return load_feature_index(path, content=only)
    if path.is_file() and path.suffix != ".json" and source not in DatasetCatalog:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{option}: {source} is neither a feature file ({kinds}) nor an index.json")
    try:
        DatasetCatalog.registered(source)
    except DataError as error:
        raise DataError(f"{option}: {str(error).removeprefix('DATASETS: ')}") from None
    records = DatasetCatalog.read(source)
    if "feature_dim" not in records.about:
        raise DataError(f"{option}: {source} holds no features; name a data set of documents")
    return records
