"""How the other systems learn in our loop: adversarially, by the mean of several answers, or from noise.

Networks and losses of all but DiffCR live in [0, 1], the images of the loop in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.networks.published_reference import DiffusedReference
from decr_scene.models.networks.reference import build_reference
from decr_scene.models.rivals.adversarial import discriminator_losses, generator_parts, initialise
from decr_scene.models.rivals.amgan import AMGAN
from decr_scene.models.rivals.cvae import CVAE, draw_latent
from decr_scene.models.rivals.discriminator import Discriminator
from decr_scene.models.rivals.dpm_solver import noise_at
from decr_scene.models.rivals.spagan import SpAGAN
from decr_scene.models.rivals.variational import SAMPLES, variational_parts
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.objectives import Draws, Objective, guess_of


class AdversarialObjective(Objective):
    """SpA-GAN or AMGAN-CR: the discriminator's turn on each batch, then the generator's."""

    clip = None

    def __init__(self, config: RunConfig) -> None:
        self.kind, self.signed = config.reference.kind, config.signed
        reference = build_reference(config.reference)
        discriminator = Discriminator(config.reference.bands, config.reference.width)
        for network in (reference, discriminator):
            initialise(network)
        self.modules = nn.ModuleDict({"reference": reference, "discriminator": discriminator})

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters of the generator."""
        return list(self.modules["reference"].parameters())

    def opponent(self) -> list[nn.Parameter]:
        """Return the parameters of the discriminator."""
        return list(self.modules["discriminator"].parameters())

    def opponent_losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the discriminator's losses on the generator's answer and on the truth."""
        cloudy, clear = _unit(cloudy), _unit(clear)
        with torch.no_grad():
            answer = self._generator()(cloudy).float()
        return discriminator_losses(self.modules["discriminator"], cloudy, clear, answer)

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the generator's losses, after the discriminator's step."""
        cloudy, clear = _unit(cloudy), _unit(clear)
        answer, attentions = self._generator().attended(cloudy)
        return generator_parts(
            self.kind,
            self.modules["discriminator"],
            cloudy,
            clear,
            answer.float(),
            attentions[-1].float(),
            signed=self.signed,
        )

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the generator's answer, ``(B, C, H, W)`` in [-1, 1]."""
        return guess_of(modules, cloudy)

    def _generator(self) -> SpAGAN | AMGAN:
        net = self.modules["reference"].get_submodule("net")
        assert isinstance(net, SpAGAN | AMGAN), "RunConfig has checked this"
        return net


class VariationalObjective(Objective):
    """CVAE: the mean of several answers against the truth, and a latent near the normal one."""

    clip = None

    def __init__(self, config: RunConfig) -> None:
        self.modules = nn.ModuleDict({"reference": build_reference(config.reference)})

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the three parts of `variational_parts`."""
        cloudy, clear = _unit(cloudy), _unit(clear)
        net = self.modules["reference"].get_submodule("net")
        assert isinstance(net, CVAE), "RunConfig has checked this"
        mu, log_var = net.encode(cloudy)
        answers = [net.decode(cloudy, draw_latent(mu, log_var, draws.normal(mu))) for _ in range(SAMPLES)]
        mean = torch.stack(answers).float().mean(dim=0)
        return variational_parts(mean, clear, mu.float(), log_var.float())

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the answer from the middle of the latent distribution, ``(B, C, H, W)`` in [-1, 1]."""
        return guess_of(modules, cloudy)


class ConditionalObjective(Objective):
    """DiffCR: the clear image, estimated from a noisy one beside the cloudy image."""

    clip = None

    def __init__(self, config: RunConfig, validation_steps: int = 5) -> None:
        self.modules = nn.ModuleDict({"reference": build_reference(config.reference)})
        self.validation_steps = validation_steps

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``mean (x0(sqrt(g) x + sqrt(1 - g) noise) - x)^2``, ``g`` drawn for each image."""
        signal, label = noise_at(draws.uniform(clear))
        signal = signal[:, None, None, None]
        x_t = signal.sqrt() * clear + (1 - signal).sqrt() * draws.normal(clear)
        return {"x0": F.mse_loss(_diffused(self.modules).estimate(x_t, label, cloudy).float(), clear)}

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the answer of a short sampling run, ``(B, C, H, W)`` in [-1, 1]."""
        noise = torch.randn(cloudy.shape, generator=generator, device=generator.device).to(cloudy.device)
        return _diffused(modules).draw(cloudy, noise, self.validation_steps).float()


def _diffused(modules: nn.ModuleDict) -> DiffusedReference:
    reference = modules["reference"]
    assert isinstance(reference, DiffusedReference), "RunConfig has checked this"
    return reference


def _unit(image: Tensor) -> Tensor:
    return (image + 1) / 2
