"""A model ready to use: networks on their device, in their precision, behind four calls."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from decr_scene.models.allocation import keep_freed_memory
from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    build_modules,
    read_model_file,
)
from decr_scene.models.checkpoints.published import Weights, published_states, read_published
from decr_scene.models.devices import full_fp32, pick_device, pick_precision
from decr_scene.models.diffusion.denoiser import DEDenoiser, MicroBatched
from decr_scene.models.diffusion.sampling import BlendTiles, DESampler, OnStep
from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.networks.detector import AnyDetector, build_detector, reduced_image
from decr_scene.models.networks.layers import with_bf16_weights
from decr_scene.models.networks.noise_network import weight_of_change
from decr_scene.models.networks.published_reference import DiffusedReference, DrawnReference

ALWAYS_FP32 = ("mn", "mdsa", "spagan", "amgan", "cvae", "diffcr")
"""Published references: instance norms and steep sigmoids do not survive bf16, and cost next to nothing."""


class Model:
    """A noise network, its reference network and, if it has one, its cloud detector, for inference.

    All images are ``(B, C, H, W)`` in [-1, 1] with the bands of ``config.bands``; they are brought to the
    model's device, and results stay there.

    Args:
        config: What to build.
        tensors: Weights by the names of a model file; they are copied.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, or any name torch knows.
        precision: ``auto``, ``fp32`` or ``bf16``, for the noise network and for our own reference.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.config = config
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.schedule = Schedule()
        with torch.device("meta"):
            self.modules = build_modules(config)
        own = {n: t.to(self.device, torch.float32, copy=True) for n, t in tensors.items()}
        self.modules.load_state_dict(own, assign=True)
        self.modules.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
        self.modules.eval().requires_grad_(False)
        self._computing = {n: self._for_inference(n) for n in ("network", "reference") if n in self.modules}

    @torch.inference_mode()
    def network(
        self,
        x_t: Tensor,
        t: Tensor | int,
        cloudy: Tensor,
        reference: Tensor,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict noise and raw weight, float32 ``(B, C, H, W)`` each, at step ``t``, 0 to 999.

        A ``weight`` that is given is returned.

        Raises:
            ValueError: The model is a reference alone.
        """
        if self.config.network is None:
            raise ValueError(f"model {self.config.name} has no noise network")
        x_t, cloudy, reference = self._on_device(x_t), self._on_device(cloudy), self._on_device(reference)
        with full_fp32():
            eps, raw = self._computing["network"](x_t, t, cloudy, reference, weight)
        return eps, raw

    @torch.inference_mode()
    def reference(
        self, cloudy: Tensor, context: Tensor | None = None, norm_side: int | None = None
    ) -> Tensor:
        """Guess the clear image, float32 ``(B, C, H, W)``: the mean over ``turns`` of the configuration.

        Args:
            cloudy: Cloudy images.
            context: What the scene as a whole shows of the same area, as `PlainUNet.forward` takes it;
                ``None``: nothing is known. Networks whose configuration has no ``context`` pass it over.
            norm_side: Side of the square around a pixel that our own network normalises by, px, so that its
                answer does not depend on how much more is seen; ``None``: the whole image.
        """
        context = None if context is None else context.to(self.device, torch.float32)
        turns = self.config.sampling.turns
        if turns == 1:
            return self._guess(cloudy, context, norm_side)
        guesses = []
        for quarter in range(0, 4, 4 // turns):
            known = None if context is None else torch.rot90(context, quarter, (2, 3))
            guess = self._guess(torch.rot90(cloudy, quarter, (2, 3)), known, norm_side)
            guesses.append(torch.rot90(guess, -quarter, (2, 3)))
        return torch.stack(guesses).mean(0)

    def _guess(self, cloudy: Tensor, context: Tensor | None, norm_side: int | None) -> Tensor:
        """Return the answer of the reference as the image lies."""
        with full_fp32():
            guess: Tensor = self._computing["reference"](self._on_device(cloudy), context, norm_side)
        return guess.float()

    @property
    def detector(self) -> AnyDetector | None:
        """Return the cloud detector, or ``None`` if the model has none."""
        if "detector" not in self.modules:
            return None
        detector = self.modules["detector"]
        assert isinstance(detector, AnyDetector)
        return detector

    @torch.inference_mode()
    def detect(self, cloudy: Tensor) -> Tensor:
        """Detect cloud, on pixels as large as ``config.detector.factor`` of the image's.

        Returns:
            float32 ``(B, 2, ceil(H / factor), ceil(W / factor))``: the probability that a pixel needs
            restoring, for cloud, thin cloud or cloud shadow, and that of cloud or thin cloud alone.

        Raises:
            ValueError: The model has no detector.
        """
        detector = self.detector
        if detector is None:
            raise ValueError(f"model {self.config.name} has no cloud detector")
        with full_fp32():
            return detector.probability(reduced_image(self._on_device(cloudy), detector.config.factor))

    @torch.inference_mode()
    def sample(
        self,
        cloudy: Tensor,
        steps: int | None = None,
        noise: Tensor | None = None,
        weight_floor: float | None = None,
        on_step: OnStep | None = None,
        reference: Tensor | None = None,
        start: int | None = None,
        seed: int = 0,
        agree: BlendTiles | None = None,
        at_once: int | None = None,
        gain: float | None = None,
    ) -> Tensor:
        """Remove the clouds.

        What is not given is as in ``config.sampling``. A model without a noise network answers with its
        reference; where that has many answers, and the weight floor is below 1, with the one that the noise
        chooses.

        Args:
            cloudy: Cloudy images.
            steps: Calls of the network.
            noise: Standard normal of the shape of ``cloudy``; by default drawn from ``seed``.
            weight_floor: Least weight of the reference; at 1 the result is the reference.
            on_step: Is called after every step with ``t=``, ``x0=`` (fused) and ``weight=``.
            reference: First guess; by default that of the reference network.
            start: Step at which the run begins, from the noised reference; 1000: from noise alone.
            seed: Of the noise; image ``i`` of the batch has its own, ``seed + i``.
            agree: Makes the estimates of overlapping tiles one picture at every step.
            at_once: Images that the network sees at a time; by default all.
            gain: Factor of what the sample changes of the reference.

        Returns:
            float32 ``(B, C, H, W)`` in [-1, 1].

        Raises:
            ValueError: The shapes do not fit the model, or the schedule has no such steps.
        """
        chosen = self.config.sampling.replaced(steps, start, weight_floor, gain=gain)
        if self.config.network is None:
            return self._sample_reference(cloudy, chosen.steps, chosen.weight_floor, noise, reference, seed)
        stays = self.config.network.covered is not None
        denoiser = DEDenoiser(self.network, self.schedule, chosen.texture, stays)
        sampler = DESampler(
            denoiser if at_once is None else MicroBatched(denoiser, at_once),
            chosen.steps,
            chosen.first_step,
        )
        cloudy = self._on_device(cloudy)
        first_guess = self.reference(cloudy) if reference is None else self._on_device(reference)
        noise = _noise(cloudy, seed) if noise is None else noise
        answer = sampler(self._on_device(noise), cloudy, first_guess, chosen.weight_floor, on_step, agree)
        if chosen.gain == 1 and not chosen.light:
            return answer
        base = first_guess.clamp(-1, 1)  # as the answer is
        change = chosen.gain * (answer - base)
        if chosen.light:
            change = change * ((base + 1) / (2 * chosen.light)).clamp(max=1)
        return (base + change).clamp(-1, 1)

    @torch.inference_mode()
    def may_change(self, cloudy: Tensor, reference: Tensor, weight_floor: float | None = None) -> Tensor:
        """Tell of which images sampling may change the first guess.

        Where `weight_of_change` is 1 all over an image, every step gives the first guess, held to [-1, 1],
        and so does `sample`, whatever the noise, to the last bit.

        Args:
            cloudy: Cloudy images.
            reference: First guesses of them, of the same shape.
            weight_floor: As of `sample`.

        Returns:
            bool ``(B,)``, computed where the images are, so that a busy GPU need not be asked. True of all
            where the weight is not known beforehand.
        """
        network, chosen = self.config.network, self.config.sampling.replaced(weight_floor=weight_floor)
        if network is None or network.covered is None or not chosen.texture:
            return torch.ones(len(cloudy), dtype=torch.bool, device=cloudy.device)
        weight = weight_of_change(cloudy, reference, *network.covered)
        return ~(weight.clamp(min=chosen.weight_floor) >= 1).flatten(1).all(dim=1)

    def _sample_reference(
        self,
        cloudy: Tensor,
        steps: int,
        floor: float,
        noise: Tensor | None,
        reference: Tensor | None,
        seed: int,
    ) -> Tensor:
        """Return the answer of a reference without a noise network, ``(B, C, H, W)`` in [-1, 1]."""
        cloudy = self._on_device(cloudy)
        if not self.config.reference.draws or floor >= 1:
            guess = self.reference(cloudy) if reference is None else self._on_device(reference)
            return guess.clamp(-1, 1)
        drawing = self.modules["reference"]
        assert isinstance(drawing, DrawnReference | DiffusedReference), "config.reference.draws"
        noise = _noise(cloudy, seed) if noise is None else noise
        with full_fp32():
            return drawing.draw(cloudy, self._on_device(noise), steps).float().clamp(-1, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return all weights by the names of a model file."""
        return dict(self.modules.state_dict())

    def _for_inference(self, name: str) -> nn.Module:
        """Return a network as it computes: in bf16 a copy, besides the weights as loaded."""
        module = self.modules[name]
        in_fp32 = name == "reference" and self.config.reference.kind in ALWAYS_FP32
        return module if self.precision == "fp32" or in_fp32 else with_bf16_weights(module)

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(self.device, torch.float32, memory_format=torch.channels_last)


def load_model(name_or_file: str | Path, device: str = "auto", precision: str = "auto") -> Model:
    """Load a bundled model by its name, or a model file.

    Raises:
        UnknownModelError: There is neither.
        CheckpointError: The file is damaged, or is no model.
    """
    config, tensors = read_model_file(find_model(name_or_file))
    return Model(config, tensors, device, precision)


class LoadedDetector:
    """A cloud detector ready to use, which answers as that of its `Model` does.

    Args:
        network: The network.
        device: Where it is.
    """

    def __init__(self, network: AnyDetector, device: torch.device) -> None:
        self.config = network.config
        self._network, self._device = network, device

    def probability(self, reduced: Tensor) -> Tensor:
        """Compute `CloudDetector.probability`, ``(B, 2, h, w)``, of images on any device."""
        with full_fp32():
            return self._network.probability(reduced.to(self._device))


def load_detector(name_or_file: str | Path, device: str = "auto") -> LoadedDetector | None:
    """Load the cloud detector of a model alone, for inference, or ``None`` if it has none.

    Raises:
        UnknownModelError: There is no such model.
        CheckpointError: The file is damaged, or is no model.
    """
    config, tensors = read_model_file(find_model(name_or_file))
    if config.detector is None:
        return None
    with torch.device("meta"):
        detector = build_detector(config.detector)
    own = {name.removeprefix("detector."): t for name, t in tensors.items() if name.startswith("detector.")}
    detector.load_state_dict({name: tensor.float() for name, tensor in own.items()}, assign=True)
    where = pick_device(device)
    detector.to(where, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]  # not in the stub
    return LoadedDetector(detector, where)


def load_published(
    de_state: Weights, reference_state: Weights, device: str = "auto", precision: str = "auto"
) -> Model:
    """Load a model from the two published checkpoints, files or mappings of published names to tensors.

    Raises:
        CheckpointError: One of the two is something else, incomplete, or they do not belong together.
    """
    config, tensors = read_published(de_state, reference_state)
    return Model(config, tensors, device, precision)


def to_published(model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert a model to the two state dicts that the published code reads, of DE and of its reference.

    Raises:
        CheckpointError: The published code has no such network.
    """
    return published_states(model.config, model.tensors())


def _noise(like: Tensor, seed: int) -> Tensor:
    """Draw standard normal noise ``(B, C, H, W)``.

    That of an image does not depend on its batch.
    """
    generators = (torch.Generator().manual_seed(seed + i) for i in range(len(like)))
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in generators])
