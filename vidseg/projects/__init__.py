"""The projects, importable as ``vidseg.projects.<name>`` whether installed or run from a checkout.

Installed, they are folders of this package. In a checkout they stand in the sibling ``projects/``
folder, which is added to the search path here; the checkout is known by its ``pyproject.toml``.
"""

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "projects").is_dir():
    __path__.append(str(_checkout / "projects"))
