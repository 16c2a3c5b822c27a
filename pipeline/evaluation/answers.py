"""How a model is asked for its answer to one image: as it samples by itself, or otherwise, to compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decr_scene.models.diffusion.denoiser import DEDenoiser
from decr_scene.models.diffusion.sampling import DESampler, OnStep
from decr_scene.models.model import Model
from decr_scene.pipeline.arrays import Float
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.regions.clear_ground import keep_clear_ground
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import place_noise


@dataclass(frozen=True)
class Settings:
    """How one system samples; what is ``None`` is the model's own.

    Args:
        steps: Diffusion steps.
        start: Step to start at; 1000: from noise alone.
        weight_floor: Least weight of the first guess.
        weight: The same weight everywhere in the place of the weight network's; 1: the first guess alone.
    """

    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    weight: float | None = None

    def sample(self, model: Model, cloudy: Float, guess: Float, on_step: OnStep | None = None) -> Float:
        """Restore one image ``(C, H, W)`` in [-1, 1]."""
        if self.weight == 1:
            return guess
        noise = place_noise(0, 0, len(cloudy), Span(0, 0, *cloudy.shape[1:]))
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
                noise=x_t,
                reference=reference,
                on_step=on_step,
            )
        )

    def _with_fixed_weight(self, model: Model) -> DESampler:
        own, weight = model.config.sampling, self.weight
        assert weight is not None, "the caller has looked"

        def network(
            x_t: torch.Tensor, t: torch.Tensor | int, cloudy: torch.Tensor, reference: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            eps, raw = model.network(x_t, t, cloudy, reference)
            return eps, torch.full_like(raw, weight)

        start = own.start if self.start is None else self.start
        steps = own.steps if self.steps is None else self.steps
        denoiser = DEDenoiser(network, model.schedule)
        return DESampler(denoiser, steps, None if start == model.schedule.timesteps else start)


def first_guess(model: Model, cloudy: Float) -> Float:
    """The reference network's answer to one image."""
    return _to_array(model.reference(torch.from_numpy(cloudy[None])))


def restore(
    model: Model,
    cloudy: Float,
    guess: Float,
    settings: Settings,
    mask: str = "none",
    on_step: OnStep | None = None,
) -> Float:
    """One image restored, ``(C, H, W)``.

    Raises:
        OptionError: The settings are out of range.
    """
    if mask not in ("none", "auto"):
        raise OptionError(f"mask must be none or auto here, got {mask}")
    try:
        answer = settings.sample(model, cloudy, guess, on_step)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return answer if mask == "none" else cloudy + keep_clear_ground(answer - cloudy)


def _to_array(images: torch.Tensor) -> Float:
    return images[0].float().cpu().numpy()
