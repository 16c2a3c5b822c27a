"""Find models by name: those that come with the package, or files. Nothing here imports torch."""

from difflib import get_close_matches
from pathlib import Path

from decr_scene.models.checkpoints.fold import MODEL_ENDINGS
from decr_scene.models.errors import UnknownModelError

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the bundled models."""


def bundled_models() -> list[str]:
    """List the models that come with the package."""
    return sorted(_bundled())


def find_model(name_or_file: str | Path) -> Path:
    """Find the file of a bundled model or of a path.

    Raises:
        UnknownModelError: There is neither.
    """
    files = _bundled()
    if str(name_or_file) in files:
        return files[str(name_or_file)]
    if Path(name_or_file).is_file():
        return Path(name_or_file)
    names = ", ".join(sorted(files)) or "none"
    near = get_close_matches(str(name_or_file), [*files, "fill", "identity"], 1)
    hint = f"did you mean {near[0]}? " if near and near[0] != str(name_or_file) else ""
    raise UnknownModelError(f"no model and no file {str(name_or_file)!r}: {hint}bundled models are {names}")


def _bundled() -> dict[str, Path]:
    """List the files of the bundled models by their names."""
    return {file.stem: file for file in WEIGHTS.glob("*") if file.suffix in MODEL_ENDINGS}
