"""How a model is asked for its answer to one image: as it samples by itself, or otherwise, to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from decr_scene.models.arrays import Float
from decr_scene.models.bundled import bundled_models, find_model
from decr_scene.models.checkpoints.model_file import read_model_config
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import find_pairs
from decr_scene.models.data.source import Pair
from decr_scene.models.diffusion.denoiser import DEDenoiser
from decr_scene.models.diffusion.sampling import DESampler, OnStep
from decr_scene.models.model import Model, load_model
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.cloud_detection import Look, look_at_image
from decr_scene.pipeline.evaluation.pairs import bands_of_folder, pixel_of_folder
from decr_scene.pipeline.inputs.bands import resolve_names
from decr_scene.pipeline.planning.detector import LENDERS, is_coarse, lent_detector, look_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.regions.clear_ground import believed_share, change_share, visible_bands
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.restoration.tasks import SAMPLE_SEED
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import place_noise


@dataclass(frozen=True)
class Settings:
    """How one system samples; what is ``None`` is the model's own.

    Args:
        steps: Diffusion steps.
        start: Step to start at; 1000: from noise alone.
        weight_floor: Least weight of the first guess.
        weight: The same weight everywhere in the place of the weight network's; 1: the first guess alone; 0
            and from noise alone: the noise network does not see the first guess either.
        number: Of the sample, from 0; each has noise of its own, as those of a scene have.
        gain: Factor of what sampling changes of the first guess; not where ``weight`` is given.
    """

    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    weight: float | None = None
    number: int = 0
    gain: float | None = None

    def check(self, model: Model | None) -> None:
        """Refuse steps and a start that the sampling of a model does not allow.

        Raises:
            OptionError: A value is out of range, or there are not so many steps from the start.
        """
        if model is None or model.config.network is None or self.weight == 1:
            return
        try:
            sampling = model.config.sampling.replaced(
                self.steps, self.start, self.weight_floor, gain=self.gain
            )
            DESampler(DEDenoiser(model.network, model.schedule), sampling.steps, sampling.first_step)
        except ValueError as error:
            raise OptionError(f"{model.config.name}: {error}") from error

    def sample(self, model: Model, cloudy: Float, guess: Float, on_step: OnStep | None = None) -> Float:
        """Restore one image ``(C, H, W)`` in [-1, 1], which a first guess may leave."""
        if self.weight == 1:
            return guess.clip(-1, 1)
        noise = place_noise(self.number * SAMPLE_SEED, 0, len(cloudy), Span(0, 0, *cloudy.shape[1:]))
        x_t, image, reference = (torch.from_numpy(i[None]).to(model.device) for i in (noise, cloudy, guess))
        if self.weight is not None:
            sampler = self._with_fixed_weight(model)
            return _to_array(sampler(x_t, image, reference, weight_floor=0.0, on_step=on_step))
        return _to_array(
            model.sample(
                image,
                steps=self.steps,
                start=self.start,
                weight_floor=self.weight_floor,
                gain=self.gain,
                noise=x_t,
                reference=reference,
                on_step=on_step,
            )
        )

    def _with_fixed_weight(self, model: Model) -> DESampler:
        sampling, weight = model.config.sampling.replaced(self.steps, self.start), self.weight
        assert weight is not None, "the caller has looked"
        without_prior = weight == 0 and sampling.first_step is None

        def network(
            x_t: torch.Tensor,
            t: torch.Tensor | int,
            cloudy: torch.Tensor,
            reference: torch.Tensor,
            _weight: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            seen = torch.zeros_like(reference) if without_prior else reference
            eps, raw = model.network(x_t, t, cloudy, seen)
            return eps, torch.full_like(raw, weight)

        denoiser = DEDenoiser(network, model.schedule, 0.0 if without_prior else sampling.texture)
        return DESampler(denoiser, sampling.steps, sampling.first_step)


@dataclass(frozen=True)
class Answerer:
    """A model ready to answer, or ``fill``, which needs none.

    Args:
        bands: That it takes.
        spec: As of a scene.
        options: As of a scene.
        model: ``None``: ``fill``.
        pixel: Side of the images' pixels, m; ``None``: unknown.
        lenders: Models that lend ``fill`` their detectors, as of `look_of`.
    """

    bands: tuple[str, ...]
    spec: RestorerSpec
    options: Options
    model: Model | None = None
    pixel: float | None = None
    lenders: tuple[str, ...] = LENDERS

    @property
    def draws_samples(self) -> bool:
        """Return whether one image has many answers, of which noise chooses one."""
        config = None if self.model is None else self.model.config
        return config is not None and (config.network is not None or config.reference.draws)

    def look(self, cloudy: Float, mask: str = "none") -> Look | None:
        """Detect cloud in a whole image, or return ``None`` if nothing needs it."""
        shape, options = (cloudy.shape[1], cloudy.shape[2]), replace(self.options, mask=mask)
        plan = look_of(self.spec, options, self.bands, shape, self.pixel, self.lenders)
        return None if plan is None else look_at_image(plan, cloudy, self.model)

    def guess(self, cloudy: Float, look: Look | None = None) -> Float:
        """Compute the first guess: the reference network's, or for ``fill`` the ground's tone under cloud."""
        whole = Span(0, 0, *cloudy.shape[1:])
        if self.model is None:
            assert look is not None, "fill cannot be planned without"
            tone = look.ground.tone(whole) if look.ground.known else cloudy
            return cloudy + look.mask.soft(whole) * (tone - cloudy)
        if not self.spec.context:
            return _to_array(self.model.reference(torch.from_numpy(cloudy[None])))
        context = None if look is None else torch.from_numpy(look.ground.context(whole)[None])
        return _to_array(self.model.reference(torch.from_numpy(cloudy[None]), context))


def check_sizes(name: str, answerer: Answerer, pairs: Iterable[Pair]) -> None:
    """Refuse pairs of a size that a model cannot take, before anything is measured.

    Raises:
        OptionError: It takes images of one size alone, and one of these has another.
    """
    side = None if answerer.model is None else answerer.model.config.reference.only_side
    for pair in pairs if side is not None else ():
        height, width = pair.cloudy.shape[1:]
        if (height, width) != (side, side):
            raise OptionError(
                f"{pair.name} is {height} x {width} px, {name} takes {side} x {side} alone: "
                "resize the pairs by --protocol paper or --reduce"
            )


def open_answerer(
    name: str, data: Path, bands: str | None, detector: str = "auto", reduce: int = 1
) -> Answerer:
    """Load a model, or make ``fill`` ready for the bands of a folder, averaged ``reduce`` x ``reduce``.

    Raises:
        OptionError: The bands of the folder are not known, or it is ``identity``.
        TrainingError: It is no folder of pairs.
        DecrSceneError: As `load_model`.
    """
    if name == "identity":
        raise OptionError("identity gives back its input, which is measured anyway: leave it out")
    options = Options(model=name, detector=detector)
    spec, _ = spec_of(options)
    if name != "fill":
        loaded = load_model(name)
        return Answerer(loaded.config.bands, spec, options, loaded, pixel=pixel_of_folder(data, reduce))
    names = resolve_names(("",) * len(bands.split(",")), bands) if bands else bands_of_folder(data)
    if names is None:
        find_pairs(DataConfig(folder="."), data, None)  # what is wrong with the folder is told first
        raise OptionError(f"fill does not know the bands of {data}: name them with --bands")
    return Answerer(names, spec, options, pixel=pixel_of_folder(data, reduce))


def open_fill(
    bands: tuple[str, ...],
    answerers: Sequence[Answerer],
    data: Path,
    detector: str = "auto",
    reduce: int = 1,
) -> Answerer:
    """Prepare ``fill`` for images of these bands, with the detector that a run would take.

    False colours go by the names of natural ones. So of three bands, unless their pixels are known to be
    fine, the first of the models that are compared lends its detector; else the bundled one whose bands are
    in the same order, which tells them apart.

    Args:
        bands: Of the images.
        answerers: What it is compared with.
        data: Folder of the images.
        detector: Of what it is compared with; ``ukis`` holds for ``fill`` as well.
        reduce: So many of their pixels become one along a side.

    Raises:
        OptionError: Nothing can look at such images.
    """
    options = Options(model="fill", detector="ukis" if detector == "ukis" else "auto")
    spec, _ = spec_of(options)
    pixel = pixel_of_folder(data, reduce)
    orders = {name: read_model_config(find_model(name)).bands for name in bundled_models()}
    by_order = sorted(orders, key=lambda name: orders[name] != bands)
    lenders = (*(answerer.spec.name for answerer in answerers if answerer.model is not None), *by_order)
    if "nir" in bands or (pixel is not None and not is_coarse(pixel)):
        lenders = (*LENDERS, *lenders)
    if lent_detector(bands, lenders) is None:
        raise OptionError(
            f"nothing finds cloud in images of {', '.join(bands)}, so there is no fill to compare with: "
            "compare with a model that has a detector of these bands"
        )
    return Answerer(bands, spec, options, pixel=pixel, lenders=lenders)


class Answer(NamedTuple):
    """The answer to one image, as it would stand in a result.

    Args:
        image: What stands there, ``(C, H, W)`` in [-1, 1]: the input where it is kept.
        own: The system's own answer, same shape.
        share: How much of the change from the input to ``own`` is in ``image``, ``(H, W)``; ``None``: all.
    """

    image: Float
    own: Float
    share: Float | None = None

    def weigh(self, deviation: Float) -> Float:
        """Scale the standard deviation of ``own``, ``(H, W)``, to that of ``image``."""
        return deviation if self.share is None else deviation * self.share


def restore(
    answerer: Answerer,
    cloudy: Float,
    guess: Float,
    settings: Settings,
    mask: str = "none",
    look: Look | None = None,
    on_step: OnStep | None = None,
) -> Answer:
    """Restore one image ``(C, H, W)`` in [-1, 1].

    Raises:
        OptionError: The settings are out of range.
    """
    if mask not in ("none", "auto"):
        raise OptionError(f"mask must be none or auto here, got {mask}")
    if answerer.model is None:
        return Answer(guess, guess)
    try:
        own = settings.sample(answerer.model, cloudy, guess, on_step)
    except ValueError as error:
        raise OptionError(str(error)) from error
    if mask == "none":
        return Answer(own, own)
    share = _share(own - cloudy, look, answerer.bands)
    return Answer(cloudy + share * (own - cloudy), own, share)


def _share(change: Float, look: Look | None, bands: Sequence[str]) -> Float:
    """Return the share of the change of an image that is applied, ``(H, W)``."""
    whole = Span(0, 0, *change.shape[1:])
    if look is None:
        return change_share(change, whole, whole)
    soft = look.mask.soft(whole)
    if not look.veils:
        return soft
    much = change_share(change, whole, whole)
    if look.doubts_veils:
        of_light = change[visible_bands(bands, len(change))].mean(axis=0)
        much = much * believed_share(of_light, soft == 0, whole, whole) * (1 - look.mask.bare(whole))
    return np.maximum(soft, much)


def _to_array(images: torch.Tensor) -> Float:
    return images[0].float().cpu().numpy()
