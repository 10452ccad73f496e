"""Loading text models of the transformers library: restricted, complete, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidseg.errors import DataError

from .pretrained import import_library, loading

__all__ = ["load_transformers"]

# What the heads of text models are called whose output is not asked for.
_UNUSED = ("pooler.", "bert.pooler.")


def load_transformers(source: str, model_class: str, provider: str) -> tuple[Any, Any]:
    """Loads tokenizer and model.

    Args:
        source: folder, or name on the hub.
        model_class: of the library.
        provider: for messages.

    Returns:
        Tokenizer and model, in eval mode on the CPU.

    Raises:
        UserError: if the library is not installed.
        DataError: if files are missing, damaged or of another kind of model.
    """
    library = import_library("transformers", provider)
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise DataError(f"{source} is no folder of a model: it has no config.json")
    with loading(source, "tokenizer and text model"), _quiet(library):
        tokenizer = library.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, told = getattr(library, model_class).from_pretrained(
            source,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
        missing = [key for key in told["missing_keys"] if not key.startswith(_UNUSED)]
        missing += [
            entry if isinstance(entry, str) else entry[0] for entry in told["mismatched_keys"]
        ]
        if missing:
            raise DataError(
                f"{source} does not fit {model_class}: {len(missing)} of its weights are missing "
                f"or of another shape, the first is {min(missing)}"
            )
    return tokenizer, model.float().eval()


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keeps back bars of progress and lists of weights that are not needed."""
    logging = library.logging
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
