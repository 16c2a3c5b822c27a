"""Answers of whole runs: each cloudy image through `process_scene`, as a scene that a user has.

The other answers are the networks' alone. A run besides scales coarse images on a curve, gives way to the
ground's tone where cloud is left, holds guesses to that tone, guesses over windows, and feathers tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from decr_scene.models.arrays import Float
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import find_pairs
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OptionError, RunCancelledError, SceneError
from decr_scene.pipeline.evaluation.answers import Settings
from decr_scene.pipeline.evaluation.pairs import load_restored, places_of
from decr_scene.pipeline.inputs.bands import resolve_names
from decr_scene.pipeline.raster.images import has_alpha
from decr_scene.pipeline.run import process_scene
from decr_scene.pipeline.system.signals import removed_at_end


@dataclass(frozen=True)
class WholeRuns:
    """Runs over the cloudy images of a folder of pairs.

    Args:
        cloudy: The images, in the order of `load_pairs`.
        places: Places of the bands that are measured, as of `places_of`.
        bands: Names of an image's bands, as those who measure take them; ``None``: the files say it.
        mask: As ``Options.mask``, ``auto`` or ``none``.
        warned: Names of the images by what the runs warned of, in the order of the first of each.
    """

    cloudy: tuple[Path, ...]
    places: tuple[int, ...] | None
    bands: tuple[str, ...] | None
    mask: str
    warned: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def over(cls, data: Path, model_bands: tuple[str, ...], bands: str | None, mask: str) -> WholeRuns:
        """Prepare runs over the folder ``data``.

        Raises:
            OptionError: Images have a band in a file of its own: a run takes one file.
            TrainingError: It is no folder of pairs.
        """
        places = places_of(model_bands, data, bands)
        found, _ = find_pairs(DataConfig(folder=".", bands=places), data, len(model_bands))
        if any(pair.cloudy_nir is not None for pair in found):
            raise OptionError(
                f"{data} has near infrared in files of its own, a run takes one file an image: stack them, "
                "or drop --by-process"
            )
        cloudy = tuple(pair.cloudy for pair in found if pair.cloudy is not None)
        names = model_bands if places is None else None
        if bands is not None:
            names = resolve_names(("",) * len(bands.split(",")), bands)
        return cls(cloudy, places, names, mask)

    @property
    def warnings(self) -> tuple[str, ...]:
        """List what the runs warned of, once each, with the number of images and the first of them."""
        return tuple(f"{names[0]}{_others(names)}: {text}" for text, names in self.warned.items())

    def answer(
        self, number: int, model: str, settings: Settings, shape: tuple[int, int], detector: str = "auto"
    ) -> Float:
        """Restore one image, ``(C, H, W)`` in [-1, 1], the bands as the pairs have them.

        Args:
            number: Of the image.
            model: Bundled name or file.
            settings: How it samples, without a weight of its own.
            shape: ``(height, width)`` of the pair.
            detector: As ``Options.detector``.

        Raises:
            DecrSceneError: As `process_scene`, with the name of the image; or the output has faults.
        """
        assert settings.weight is None, "a run has no fixed weight"
        cloudy = self.cloudy[number]
        with TemporaryDirectory(prefix="decr-scene-") as folder, removed_at_end(folder), _named(cloudy):
            restored = Path(folder, "restored.tif")
            report = process_scene(
                cloudy,
                restored,
                model=model,
                steps=settings.steps,
                start=settings.start,
                weight_floor=settings.weight_floor,
                gain=settings.gain,
                bands=self._bands_of(cloudy),
                mask=self.mask,
                detector=detector,
            )
            if report.faults:
                raise SceneError("; ".join(report.faults))
            for text in report.warnings:
                names = self.warned.setdefault(text, [])
                if cloudy.name not in names:
                    names.append(cloudy.name)
            return load_restored(restored, cloudy, self.places, shape)

    def _bands_of(self, cloudy: Path) -> str | None:
        """Name the bands of a file for a run, which counts a picture's alpha channel."""
        if self.bands is None:
            return None
        with_alpha = self.bands if "alpha" in self.bands else (*self.bands, "alpha")
        return ",".join(with_alpha if has_alpha(cloudy) else self.bands)


@contextmanager
def _named(cloudy: Path) -> Iterator[None]:
    """Name the image in what goes wrong with its run."""
    try:
        yield
    except RunCancelledError:
        raise
    except DecrSceneError as error:
        if cloudy.name in str(error):
            raise
        raise type(error)(f"{cloudy.name}: {error}") from error


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
