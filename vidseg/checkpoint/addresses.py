"""Where weights are: files by their path, and where to get those that configs name by address."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vidseg.errors import DataError

from .files import require_file

__all__ = ["find_run_weights", "find_weights"]

# Files that are named by an address are expected here, relative to the working directory.
FOLDER = Path("weights")

_ZOO = "https://dl.fbaipublicfiles.com"
_DETECTRON2 = "detectron2://"
_CATALOG = "catalog://"
# The catalog of Detectron's Caffe2 models renames some of its files.
_CATALOG_FILES = {
    "FAIR/R-50-GN": "47261647/R-50-GN",
    "FAIR/R-101-GN": "47592356/R-101-GN",
    "FAIR/X-101-32x8d": "20171220/X-101-32x8d",
    "FAIR/X-101-64x4d": "FBResNeXt/X-101-64x4d",
    "FAIR/X-152-32x8d-IN5k": "25093814/X-152-32x8d-IN5k",
}
_MASK2FORMER = f"{_ZOO}/maskformer/mask2former/coco"
# Files that published configs name without saying where they come from.
_KNOWN = {
    "dinov2_vitl14_pretrain.pth": f"{_ZOO}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "model_final_3c8ec9.pkl": (
        f"{_MASK2FORMER}/instance/maskformer2_R50_bs16_50ep/model_final_3c8ec9.pkl"
    ),
    "model_final_94dc52.pkl": (
        f"{_MASK2FORMER}/panoptic/maskformer2_R50_bs16_50ep/model_final_94dc52.pkl"
    ),
    "model_final_e5f453.pkl": (
        f"{_MASK2FORMER}/instance/maskformer2_swin_large_IN21k_384_bs16_100ep/"
        "model_final_e5f453.pkl"
    ),
}


def find_weights(source: str | Path) -> Path:
    """Gives the file of weights that a path or an address stands for; nothing is downloaded.

    An address (``https://...``, ``detectron2://...``) stands for the file of its name in the folder
    ``weights``; of a ``detectron2://`` address the folders are kept, since several files share a
    name.

    Raises:
        DataError: if there is no such file; says where to get it and where to put it.
    """
    text = str(source)
    if "://" in text:
        address, place = _address_and_place(text)
        if not place.is_file():
            raise DataError(
                f"{text}: weights are not downloaded; fetch {address} and put it at {place}"
            )
        return place
    path = Path(source).expanduser()
    known = _KNOWN.get(path.name)
    if known and not path.exists():
        raise DataError(f"weights file {path} does not exist; fetch {known} and put it there")
    require_file(path)
    return path


def find_run_weights(named: str | Path | None, output_dir: str | Path) -> Path:
    """Gives the file of the weights that are named, else of those that a run left.

    Args:
        named: a path or an address; ``""`` or None for the run's.
        output_dir: of the run.

    Raises:
        DataError: if there is no such file.
    """
    if named:
        return find_weights(named)
    chosen = Path(output_dir, "model_final.pth").expanduser()
    if chosen.is_file():
        return chosen
    raise DataError(
        f"no weights: {chosen} does not exist; train this config with tools/train_net.py, or name "
        "a weights file"
    )


def _address_and_place(text: str) -> tuple[str, Path]:
    if text.startswith(_DETECTRON2):
        name = text.removeprefix(_DETECTRON2)
        return f"{_ZOO}/detectron2/{name}", _below(FOLDER, name)
    if text.startswith(_CATALOG):
        folder, _, model = text.removeprefix(_CATALOG).partition("/")
        name = f"{folder}/{_CATALOG_FILES.get(model, model)}.pkl"
        return f"{_ZOO}/detectron/{name}", _below(FOLDER, name)
    return text, FOLDER / PurePosixPath(text.partition("?")[0]).name


def _below(folder: Path, name: str) -> Path:
    return folder.joinpath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/")))
