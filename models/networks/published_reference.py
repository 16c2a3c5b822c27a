"""Have published networks answer as our own reference does: a clear image for a cloudy one, in [-1, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from decr_scene.models.rivals.cvae import CVAE, LATENT
from decr_scene.models.rivals.diffcr import DATES, DiffCR
from decr_scene.models.rivals.dpm_solver import DPMSolver


class PublishedReference(nn.Module):
    """A published network of [0, 1] on images in [-1, 1]: ``2 E((y + 1) / 2) - 1``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, cloudy: Tensor, context: Tensor | None = None, norm_side: int | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` in [-1, 1] to the same, without a look at the other arguments."""
        first_guess: Tensor = self.net((cloudy + 1) / 2)
        return 2 * first_guess - 1


class DrawnReference(PublishedReference):
    """CVAE: the first guess is the middle of its answers; with noise, any of them."""

    net: CVAE

    def draw(self, cloudy: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Draw one answer, ``(B, C, H, W)``, by the first `LATENT` numbers of each image's noise."""
        eps = noise.flatten(1)[:, :LATENT]
        return 2 * self.net((cloudy + 1) / 2, eps) - 1


class DiffusedReference(nn.Module):
    """DiffCR: its first guess is the cloudy image, and with noise its answer is that of a sampling run."""

    def __init__(self, net: DiffCR) -> None:
        super().__init__()
        self.net = net

    def forward(self, cloudy: Tensor, context: Tensor | None = None, norm_side: int | None = None) -> Tensor:
        """Return the cloudy image, ``(B, C, H, W)``."""
        return cloudy

    def draw(self, cloudy: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Return the answer of a run that begins at the noise, ``(B, C, H, W)``.

        The one cloudy image takes the place of all `DATES`.
        """

        def estimate(x: Tensor, label: float) -> Tensor:
            return self.estimate(x, x.new_full((len(x),), label), cloudy)

        return DPMSolver(steps)(noise, estimate)

    def estimate(self, x_t: Tensor, label: Tensor, cloudy: Tensor) -> Tensor:
        """Estimate the clear image of a noisy one, ``(B, C, H, W)``, by a label of its noise, ``(B,)``."""
        answer: Tensor = self.net(x_t, label, cloudy[:, None].expand(-1, DATES, -1, -1, -1))
        return answer
