"""The noise network: one UNet predicts the noise (CNP), another allocates the weight (WA)."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.schedule import linear_betas
from decr_scene.models.networks.grown import GrownConfig, GrownDenoiser
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNet, UNetConfig
from decr_scene.models.value_types import WIDEST, check_range

Prediction = Literal["eps", "v", "residual"]
PREDICTIONS = ("eps", "v", "residual")

AROUND = 9
"""Side of the squares that a change is averaged over, twice, px."""

SPREAD_OF_IMAGES = 0.5
"""Standard deviation of clear images about grey, on the [-1, 1] scale, as it is assumed."""

RESIDUAL, RESIDUAL_OF_CLOUDY = 0.15, 1.0
"""Standard deviations of the errors of first guess and cloudy image, on the [-1, 1] scale, as assumed."""


@dataclass(frozen=True)
class NetworkConfig:
    """The two UNets of DE; the defaults are the published ones for red, green and blue.

    Args:
        bands: Bands of an image.
        noise: The noise predictor (CNP).
        weight: The weight allocation (WA).
        prediction: What the noise predictor gives: ``eps``, ``v = sqrt(abar) eps - sqrt(1 - abar) x0``, or
            the ``residual`` ``x0 - first guess`` in units by which it is as hard at every step (Karras et
            al. 2022, about a regression's answer as in Mardani et al. 2023).
        guided: The noise predictor also sees the first guess; zeros where there is none.
        covered: Instead of a weight network, two changes of the cloudy image by the first guess, on the
            [-1, 1] scale: up to the first one the guess has all the weight, from the second on none.
        grown: The noise predictor is grown from a reference, in the place of ``noise``; a guided residual.

    Raises:
        ValueError: ``bands`` is not positive, ``prediction`` is none of them, or the parts do not fit.
    """

    bands: int = 3
    noise: UNetConfig = field(default_factory=UNetConfig)
    weight: UNetConfig = PUBLISHED_WEIGHT
    prediction: Prediction = "eps"
    guided: bool = False
    grown: GrownConfig | None = None
    covered: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_range("bands", self.bands, 1, WIDEST)
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {self.prediction!r}")
        if self.prediction == "residual" and not self.guided:
            raise ValueError("prediction 'residual' is that of the first guess: set guided")
        if self.covered is not None and not 0 <= self.covered[0] < self.covered[1]:
            raise ValueError(f"covered must be two rising changes from 0, got {self.covered}")
        if self.grown is not None and self.prediction != "residual":
            raise ValueError(f"a grown noise predictor gives the 'residual', got {self.prediction!r}")
        if self.grown is not None and self.grown.trunk.bands != self.bands:
            raise ValueError(f"the trunk has {self.grown.trunk.bands} bands, the network {self.bands}")


class Preconditioning(NamedTuple):
    """Images ``(B, C, H, W)`` and factors ``(B, 1, 1, 1)`` of a prediction `residual`, float32.

    Karras et al. 2022, table 1 (EDM), for ``x0 - base``: s is `RESIDUAL`, ``sigma = sqrt(1/abar - 1)``.
    """

    base: Tensor
    """The first guess; the cloudy image where there is none."""
    off: Tensor
    """Difference of the noisy image from it, ``x_t / sqrt(abar) - base``."""
    skip: Tensor
    """``c_skip = s^2 / (s^2 + sigma^2)``."""
    out: Tensor
    """``c_out = sigma s / sqrt(s^2 + sigma^2)``."""
    into: Tensor
    """``c_in = 1 / sqrt(s^2 + sigma^2)``."""
    given: Tensor
    """Which images have a first guess."""


class NoiseNetwork(nn.Module):
    """Noise prediction and weight allocation in one, whatever the noise predictor was trained to give.

    Args:
        config: Bands, the two UNets, and what the first one predicts.
    """

    signal_rate: Tensor
    noise_rate: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        seen = 3 if config.guided else 2
        self.noise_net = (
            UNet(config.noise, seen * config.bands, config.bands)
            if config.grown is None
            else GrownDenoiser(config.grown)
        )
        if config.covered is None:
            self.weight_net = UNet(config.weight, 3 * config.bands, config.bands)
        abar = torch.from_numpy((1 - linear_betas()).cumprod())
        self.register_buffer("signal_rate", abar.sqrt().float(), persistent=False)
        self.register_buffer("noise_rate", (1 - abar).sqrt().float(), persistent=False)

    @property
    def multiple(self) -> int:
        """Return the number of pixels that height and width must be multiples of, for both UNets."""
        noise = self.config.noise if self.config.grown is None else self.config.grown
        return noise.multiple if self.config.covered else max(noise.multiple, self.config.weight.multiple)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor | int,
        cloudy: Tensor,
        reference: Tensor,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the noise and allocate the weight.

        Args:
            x_t: Noisy image, ``(B, C, H, W)``.
            t: Step of the full schedule, one number or ``(B,)``.
            cloudy: Cloudy image in [-1, 1], ``(B, C, H, W)``.
            reference: First guess in [-1, 1], ``(B, C, H, W)``.
            weight: Returned as the weight, where that of an earlier step is as good.

        Returns:
            ``eps`` and the raw weight, not limited to any range; float32 ``(B, C, H, W)`` each.
        """
        eps = self.noise(x_t, t, cloudy, reference)
        return eps, self.weight(x_t, t, cloudy, reference) if weight is None else weight

    def noise(self, x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor | None = None) -> Tensor:
        """Predict the noise ``eps`` alone, float32 ``(B, C, H, W)``, from whatever the network predicts."""
        steps, about = self._prepared(x_t, t, cloudy, reference)
        raw = self._predict(x_t, steps, about, cloudy, reference)
        return self._eps_from(raw, x_t, steps, about)

    def eps_from(
        self, raw: Tensor, x_t: Tensor, steps: Tensor, cloudy: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """Convert a prediction to noise, ``(B, C, H, W)``.

        Of v it is ``sqrt(abar_t) v + sqrt(1 - abar_t) x_t``.
        """
        about = self._about_residual(x_t, steps, cloudy, reference)
        return self._eps_from(raw, x_t, steps, about)

    def _eps_from(self, raw: Tensor, x_t: Tensor, steps: Tensor, about: Preconditioning | None) -> Tensor:
        """Convert a prediction to noise, ``about`` that of a `residual`."""
        if self.config.prediction == "eps":
            return raw
        signal, noise = self._rates(steps)
        if about is None:
            return signal * raw + noise * x_t.float()
        x0 = about.base + about.skip * about.off + about.out * raw
        return (x_t.float() - signal * x0) / noise

    def target(
        self, x0: Tensor, noise: Tensor, t: Tensor, cloudy: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """Compute the answer that `predict` should give, ``(B, C, H, W)``, for ``x0`` under ``noise``."""
        if self.config.prediction == "eps":
            return noise
        signal, rate = self._rates(t)
        if self.config.prediction == "v":
            return signal * noise - rate * x0
        about = self._about(signal * x0 + rate * noise, t, cloudy, reference)
        return (x0 - about.base - about.skip * about.off) / about.out

    def _rates(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``sqrt(abar_t)`` and ``sqrt(1 - abar_t)``, ``(B, 1, 1, 1)``."""
        return self.signal_rate[steps][:, None, None, None], self.noise_rate[steps][:, None, None, None]

    def _about_residual(
        self, x_t: Tensor, steps: Tensor, cloudy: Tensor, reference: Tensor | None
    ) -> Preconditioning | None:
        """Compute the preconditioning of a prediction `residual`, ``None`` of others."""
        if self.config.prediction != "residual":
            return None
        return self._about(x_t, steps, cloudy, reference)

    def _about(self, x_t: Tensor, steps: Tensor, cloudy: Tensor, reference: Tensor | None) -> Preconditioning:
        """Compute the preconditioning of noisy images, for each image by whether it has a first guess."""
        signal, noise = self._rates(steps)
        known, unknown = RESIDUAL, RESIDUAL_OF_CLOUDY
        if self.config.grown is not None:
            known = unknown = self.config.grown.spread
        base, spread = cloudy.float(), torch.full_like(signal, unknown)
        given = torch.zeros_like(signal, dtype=torch.bool)
        if reference is not None:
            given = _is_given(reference)
            base = reference.float() if _are_all(given) else torch.where(given, reference.float(), base)
            spread = torch.where(given, known, spread)
        sigma = noise / signal
        total = sigma.square() + spread.square()
        off = x_t.float() / signal - base
        return Preconditioning(
            base, off, spread.square() / total, sigma * spread * total.rsqrt(), total.rsqrt(), given
        )

    def predict(
        self, x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """Run the noise predictor, to its raw prediction, float32 ``(B, C, H, W)``.

        A network that is not guided does not look at ``reference``; a guided one that gets none sees zeros.
        """
        return self._predict(x_t, *self._prepared(x_t, t, cloudy, reference), cloudy, reference)

    def _predict(
        self,
        x_t: Tensor,
        steps: Tensor,
        about: Preconditioning | None,
        cloudy: Tensor,
        reference: Tensor | None,
    ) -> Tensor:
        """Run the noise predictor, ``about`` that of a `residual`."""
        seen = {"cloudy": cloudy}
        if self.config.guided:
            seen["reference"] = torch.zeros_like(cloudy) if reference is None else reference
        if self.config.grown is not None:
            assert about is not None, "a grown network predicts a residual"
            return self._predict_grown(x_t, steps, cloudy, seen["reference"], about)
        if about is not None:
            x_t = about.into * about.off
        raw: Tensor = self.noise_net(torch.cat([x_t, *seen.values()], dim=1), steps)
        return raw.float()

    def _predict_grown(
        self, x_t: Tensor, steps: Tensor, cloudy: Tensor, guess: Tensor, about: Preconditioning
    ) -> Tensor:
        """Run a grown predictor: where there is no first guess, ``base`` of its answer is its own.

        ``x0 = (1 - c_skip) (y + change) + c_skip x_t / sqrt(abar) + c_out raw``.
        """
        assert isinstance(self.noise_net, GrownDenoiser)
        signal, noise = self._rates(steps)
        noisy = x_t.float() * torch.rsqrt((SPREAD_OF_IMAGES * signal).square() + noise.square())
        all_given, off = _are_all(about.given), about.into * about.off
        off = off if all_given else torch.where(about.given, off, 0)
        change, raw = self.noise_net([noisy, off, guess], cloudy, steps, of_its_own=not all_given)
        if change is None:
            return raw.float()
        return raw.float() + torch.where(about.given, 0, (1 - about.skip) / about.out) * change.float()

    def weight(self, x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> Tensor:
        """Compute the weight alone, raw, float32 ``(B, C, H, W)``."""
        self._check_images(x_t, cloudy=cloudy, reference=reference)
        if self.config.covered is not None:
            return weight_of_change(cloudy.float(), reference.float(), *self.config.covered)
        raw: Tensor = self.weight_net(torch.cat([x_t, cloudy, reference], dim=1), _steps(t, x_t))
        return raw.float()

    def _prepared(
        self, x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor | None
    ) -> tuple[Tensor, Preconditioning | None]:
        """Refuse images of other shapes, and return step numbers and the preconditioning of a `residual`."""
        guess = {} if reference is None or not self.config.guided else {"reference": reference}
        self._check_images(x_t, cloudy=cloudy, **guess)
        steps = _steps(t, x_t)
        return steps, self._about_residual(x_t, steps, cloudy, reference)

    def _check_images(self, x_t: Tensor, **others: Tensor) -> None:
        if x_t.ndim != 4 or x_t.shape[1] != self.config.bands:
            expected = f"(B, {self.config.bands}, H, W)"
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}, the network takes {expected}")
        for name, image in others.items():
            if image.shape != x_t.shape:
                raise ValueError(
                    f"{name} has shape {tuple(image.shape)}, x_t {tuple(x_t.shape)}: make them equal"
                )


def weight_of_change(cloudy: Tensor, reference: Tensor, low: float, high: float) -> Tensor:
    """Weigh a first guess by how much of the ground the cloudy image shows: ``1 - (c - low) / (high - low)``.

    ``c`` is the mean change over the bands and `AROUND` px. Where little changes the ground is seen, and
    needs no sampled texture.

    Returns:
        In [0, 1], ``(B, C, H, W)``.
    """
    change = (reference - cloudy).abs().mean(dim=1, keepdim=True)
    for axis in (2, 3, 2, 3):  # a square twice, eight times faster than at once
        change = _average_along(change, axis)
    return (1 - (change - low) / (high - low)).clamp(0, 1).expand_as(cloudy)


def _average_along(x: Tensor, axis: int) -> Tensor:
    """Average `AROUND` px along axis 2 or 3 of ``(B, C, H, W)``; what is beyond the border does not count.

    On a CPU by sums of moved images, eight times faster than by `F.avg_pool2d`, in float32 to the same bits.
    """
    reach, length = AROUND // 2, x.shape[axis]
    if not x.is_cpu:
        kernel, padding = ((AROUND, 1), (reach, 0)) if axis == 2 else ((1, AROUND), (0, reach))
        return F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    place = torch.arange(length)
    counts = (place + reach + 1).clamp(max=length) - (place - reach).clamp(min=0)
    padded = F.pad(x, (0, 0, reach, reach) if axis == 2 else (reach, reach))
    total = padded.narrow(axis, 0, length)
    for first in range(1, AROUND):
        total = total + padded.narrow(axis, first, length)
    return total / (counts[:, None] if axis == 2 else counts)


def _is_given(reference: Tensor) -> Tensor:
    """Return which images have a first guess, one that is not all zeros, ``(B, 1, 1, 1)``."""
    return reference.abs().amax((1, 2, 3), keepdim=True) > 0


def _are_all(given: Tensor) -> bool:
    """Return whether all are known to be set, at inference; a GPU is not asked, as that would wait for it."""
    return given.is_cpu and not torch.is_grad_enabled() and bool(given.all())


def _steps(t: Tensor | int, x_t: Tensor) -> Tensor:
    """Make step numbers ``(B,)`` on the device of ``x_t``, without a copy that would wait for it."""
    if isinstance(t, int):
        return torch.full((x_t.shape[0],), t, device=x_t.device)
    return t.to(x_t.device).expand(x_t.shape[0])
