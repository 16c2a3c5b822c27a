"""The stage ``detector``: cross-entropy of both answers against the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.detector import DetectorConfig, build_detector


class DetectorObjective:
    """Binary cross-entropy, pixel by pixel; the batches have labels in the place of clear images."""

    def __init__(self, config: DetectorConfig) -> None:
        self.modules = nn.ModuleDict({"detector": build_detector(config)})

    def trained(self) -> list[nn.Parameter]:
        """All of them."""
        return list(self.modules.parameters())

    def losses(self, cloudy: Tensor, clear: Tensor, draws: object) -> dict[str, Tensor]:
        """Mean over the pixels that count; ``clear`` holds labels, ``(B, 3, H, W)``."""
        answers, counts = clear[:, :2], clear[:, 2:]
        logits = self.modules["detector"](cloudy).float()
        loss = F.binary_cross_entropy_with_logits(logits, answers, weight=counts, reduction="none")
        restore, cloud = loss.sum((0, 2, 3)) / counts.sum().clamp(min=1)
        return {"restore": restore, "cloud": 0.5 * cloud}

    def answer(self, cloudy: Tensor, generator: object) -> Tensor:
        """Probabilities ``(B, 2, H, W)``."""
        return self.modules["detector"](cloudy).float().sigmoid()
