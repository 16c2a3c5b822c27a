"""Train a noise network against a critic, so that it adds detail like the ground's where cloud hid it.

By the denoising loss alone the best answer in one step is the mean of all possible grounds, which is smooth
where nothing is seen. So two steps of the network's own sampling, from the noised first guess on, are judged
by a critic (denoising with an adversary: Xiao et al. 2022). It sees what sampling composes: what is finer
than ``texture`` px from the diffusion, where cloud hid the ground, and all else from the first guess.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.denoiser import DEDenoiser
from decr_scene.models.diffusion.smoothing import smoothed
from decr_scene.models.networks.critic import HALVINGS, Critic
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.objectives import Draws, EnhancementObjective, degraded, guess_of, parts_of

CONTRAST = 30.0
"""Factor of the detail that the critic sees: the ground's is some hundredths, on the [-1, 1] scale."""

TINY = 1e-12
"""What a power has added, so that its root has a slope at none."""

FAINT = 1e-4
"""Least power of the ground's detail that an answer's is held against: that of 1.3 DN of 255."""


class Painted(NamedTuple):
    """Parts of crops as the critic sees them, ``(B, C, H, W)`` unless another shape is given."""

    answers: list[Tensor]
    """Fused estimates at the steps of a run."""
    truth: Tensor
    """The same composition with the clear image in the place of the diffusion's estimate."""
    guess: Tensor
    """The first guess."""
    about: Tensor
    """Smoothed first guess, and share of the diffusion, ``(B, C + 1, H, W)``."""
    cover: Tensor
    """Share of the diffusion at the logits, ``(B, 1, H / 8, W / 8)``."""


class PaintingObjective(EnhancementObjective):
    """Stage diffusion with a critic: the critic's turn on each batch, then the noise network's."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        assert config.critic is not None, "RunConfig has checked this"
        self.critic, self.bands = config.critic, len(config.bands)
        self.start, self.texture = config.latest_start, config.critic.texture
        self.modules["critic"] = Critic(config.critic, self.bands)
        self.denoiser = DEDenoiser(self.network, self.schedule, self.texture)

    def opponent(self) -> list[nn.Parameter]:
        """Return the parameters of the critic."""
        return list(self.modules["critic"].parameters())

    def opponent_losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``softplus(D(painted))``, ``softplus(-D(ground))`` and R1, means over what cloud hid."""
        with torch.no_grad():
            painted = self._painted(cloudy, clear, draws, context)
        fake = [F.softplus(self._judged(answer, painted)[0].float()) for answer in painted.answers]
        ground = painted.truth.requires_grad_()
        real = self._judged(ground, painted)[0].float()
        (slope,) = torch.autograd.grad((real * painted.cover).sum(), ground, create_graph=True)
        steepness = (slope / CONTRAST).square().sum() / painted.cover.sum().clamp(min=1)
        return {
            "fake": _mean_where(torch.stack(fake).mean(0), painted.cover),
            "real": _mean_where(F.softplus(-real), painted.cover),
            "calm": self.critic.calm / 2 * steepness,
        }

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the noise network's losses, after the critic's step."""
        painted = self._painted(cloudy, clear, draws, context)
        expected: list[Tensor] = []
        if self.critic.features:
            with torch.no_grad():
                _, expected = self._judged(painted.truth, painted)
        parts = [self._opinions(answer, painted, expected) for answer in painted.answers]
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        return {**means, "noise": self._noise_loss_unguided(cloudy, clear, draws)}

    def _opinions(self, answer: Tensor, painted: Painted, expected: list[Tensor]) -> dict[str, Tensor]:
        """Return the losses of one estimate that have a weight, weighed."""
        logits, features = self._judged(answer, painted)
        values = {"opinion": _mean_where(F.softplus(-logits.float()), painted.cover)}
        if self.critic.features:
            pairs = zip(features, expected, strict=True)
            off = [_mean_where((found.float() - true.float()).abs(), painted.cover) for found, true in pairs]
            values["features"] = torch.stack(off).mean()
        if self.critic.distance:
            values["distance"] = _mean_where((answer - painted.truth).abs(), painted.cover)
        if self.critic.roughness:
            coarse = painted.about[:, : self.bands]
            values["roughness"] = roughness_loss(answer - coarse, painted.truth - coarse, painted.cover)
        return {name: getattr(self.critic, name) * value for name, value in values.items()}

    def _painted(self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None) -> Painted:
        """Take two steps of a run from the noised first guess."""
        guess = degraded(guess_of(self.modules, cloudy, context), draws, 0.0)
        draws = draws.of_parts((cloudy.shape[-1] // self.part) * (cloudy.shape[-2] // self.part))
        cloudy, clear, guess = (parts_of(image, self.part) for image in (cloudy, clear, guess))
        noise = draws.normal(clear)
        first = draws.step(self.latest_start // 2, self.latest_start)
        second = draws.step(0, first // 2)
        x_t = self.schedule.add_noise(guess, noise, first)
        begun = self.denoiser(x_t, first, cloudy, guess, 0.0)
        x_t = self.schedule.add_noise(begun.x0, self.schedule.eps_from_x0(x_t, begun.x0, first), second)
        ended = self.denoiser(x_t, second, cloudy, guess, 0.0)
        share = 1 - begun.weight[:, :1].float()
        sigma = guess.new_full((len(guess),), self.texture)
        return Painted(
            [begun.x0.float(), ended.x0.float()],
            (guess + share * self._fine(clear - guess, sigma)).clamp(-1, 1),
            guess,
            torch.cat([smoothed(guess, sigma, self.texture), share], dim=1),
            F.avg_pool2d(share, 1 << HALVINGS),
        )

    def _fine(self, images: Tensor, sigma: Tensor) -> Tensor:
        """Return what is finer than a Gaussian, same shape."""
        return images - smoothed(images, sigma, self.texture)

    def _judged(self, images: Tensor, painted: Painted) -> tuple[Tensor, list[Tensor]]:
        """Return the critic's logits and features of images ``(B, C, H, W)``."""
        fine = CONTRAST * (images - painted.about[:, : self.bands])
        answer: tuple[Tensor, list[Tensor]] = self.modules["critic"](fine, painted.about)
        return answer

    def _noise_loss_unguided(self, cloudy: Tensor, clear: Tensor, draws: Draws) -> Tensor:
        """Compute eq. 7 of a part of each crop without a first guess, so that runs from noise stay good."""
        cloudy, clear = (image[..., : self.part, : self.part] for image in (cloudy, clear))
        t, noise = draws.steps(self.schedule.timesteps, clear), draws.normal(clear)
        x_t = self.schedule.add_noise(clear, noise, t)
        nothing = torch.zeros_like(clear)
        predicted = self.network.predict(x_t, t, cloudy, nothing)
        return F.mse_loss(predicted, self.network.target(clear, noise, t, cloudy, nothing))


def roughness_loss(painted: Tensor, ground: Tensor, cover: Tensor) -> Tensor:
    """Compare the strength of detail by octaves of a Laplacian pyramid, in squares of ``2**HALVINGS`` px.

    Where nothing is seen no answer has the ground's detail in its place, and the least square error is to
    have none; how strong it is can be told from the ground around.

    Args:
        painted: Detail of an answer, ``(B, C, H, W)``.
        ground: The ground's, same shape.
        cover: Weights of the squares, ``(B, 1, H / 8, W / 8)``.

    Returns:
        Squared difference of the root mean squares over the ground's mean square, the mean of the octaves.
    """
    octaves = []
    for size in range(HALVINGS, 0, -1):
        strengths = []
        for image in (painted, ground):
            above = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2, mode="bilinear")
            power = F.avg_pool2d((image - above).square(), 1 << size)
            strengths.append((power + TINY).sqrt())
        off, whole = (strengths[0] - strengths[1]).square(), strengths[1].square()
        octaves.append(_mean_where(off, cover) / _mean_where(whole, cover).clamp(min=FAINT))
        painted, ground = F.avg_pool2d(painted, 2), F.avg_pool2d(ground, 2)
    return torch.stack(octaves).mean()


def _mean_where(values: Tensor, cover: Tensor) -> Tensor:
    """Average ``(B, C, H, W)`` over where cloud hid the ground, ``cover`` brought to its size."""
    if cover.shape[-2:] != values.shape[-2:]:
        cover = F.interpolate(cover, values.shape[-2:])
    return (values * cover).sum() / (cover.sum() * values.shape[1]).clamp(min=1)
