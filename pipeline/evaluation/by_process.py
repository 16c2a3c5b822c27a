"""Answers of whole runs: each cloudy image through `process_scene`, as a scene that a user has.

The other answers are the networks' alone. A run besides scales coarse images on a curve, gives way to the
ground's tone where cloud is left, guesses over windows, and feathers tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from decr_scene.models.arrays import Float
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import find_pairs
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Settings
from decr_scene.pipeline.evaluation.pairs import load_restored, places_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.run import process_scene


@dataclass(frozen=True)
class WholeRuns:
    """Runs over the cloudy images of a folder of pairs.

    Args:
        cloudy: The images, in the order of `load_pairs`.
        places: Places of the bands that are measured, as of `places_of`.
        bands: What the bands are called, where the files do not say it.
        mask: As ``Options.mask``, ``auto`` or ``none``.
        detector: As ``Options.detector``.
    """

    cloudy: tuple[Path, ...]
    places: tuple[int, ...] | None
    bands: str | None
    mask: str
    detector: str

    @classmethod
    def over(
        cls, data: Path, model_bands: tuple[str, ...], bands: str | None, mask: str, detector: str
    ) -> WholeRuns:
        """Prepare runs over the folder ``data``.

        Raises:
            OptionError: Images have a band in a file of its own: a run takes one file.
            TrainingError: It is no folder of pairs.
        """
        found, _ = find_pairs(DataConfig(folder="."), data, len(model_bands))
        if any(pair.cloudy_nir is not None for pair in found):
            raise OptionError(
                f"{data} has near infrared in files of its own, a run takes one file an image: stack them, "
                "or drop --by-process"
            )
        cloudy = tuple(pair.cloudy for pair in found if pair.cloudy is not None)
        return cls(cloudy, places_of(model_bands, data, bands), bands, mask, detector)

    def answer(self, number: int, model: str, settings: Settings) -> Float:
        """Restore one image, ``(C, H, W)`` in [-1, 1], the bands as the pairs have them.

        Raises:
            DecrSceneError: As `process_scene`.
        """
        assert settings.weight is None, "a run has no fixed weight"
        detector = self.detector if model != "fill" or self.detector == "ukis" else "auto"
        options = Options(
            model=model,
            steps=settings.steps,
            start=settings.start,
            weight_floor=settings.weight_floor,
            bands=self.bands,
            mask=self.mask,
            detector=detector,
        )
        with TemporaryDirectory(prefix="decr-scene-") as folder:
            restored = Path(folder, "restored.tif")
            process_scene(self.cloudy[number], restored, options)
            return load_restored(restored, self.cloudy[number], self.places)
