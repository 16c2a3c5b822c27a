"""Run models on a GPU that is not there: ``python tests/gpu/fake_cuda.py [MODEL ...]``.

Needs a build of torch with CUDA, but neither a driver nor a card. Tensors are fake: they have a device, a
type and a shape, and no numbers. So it finds whatever would be on the wrong device, in the wrong type, or
copied to or from the host inside the loop over steps; numbers, speed, memory and kernels it does not see. It
is no part of the gate, whose torch knows no CUDA.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from decr_scene.models.bundled import bundled_models, find_model
from decr_scene.models.checkpoints.model_file import ModelConfig, read_model_file
from decr_scene.models.model import Model

SIDE, BATCH, STEPS = 256, 8, 3


class Calls(TorchDispatchMode):
    """Counts what is launched, and what is copied between a GPU and its host."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: Counter[str] = Counter()
        self.copied: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and call."""
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        given, made = _tensors(args), _tensors((found,))
        where = {x.device.type for x in (*given, *made)}
        own = {x.untyped_storage()._cdata for x in given}
        is_new = any(x.untyped_storage()._cdata not in own for x in made)
        if "cuda" in where and (is_new or name.endswith("_")):
            self.launched[name] += 1
        if name in ("to", "_to_copy", "copy_", "item", "_local_scalar_dense") and len(where) > 1:
            self.copied.append(name)
        return found


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    flat = [part for value in values for part in (value if isinstance(value, (list, tuple)) else [value])]
    return [value for value in flat if isinstance(value, Tensor)]


def pretended() -> ExitStack:
    """Have torch take a GPU to be there."""
    stack = ExitStack()
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "a GPU that is not there",
    }
    for name, answer in answers.items():
        stack.enter_context(mock.patch.object(torch.cuda, name, answer))
    stack.enter_context(mock.patch.object(nn.Module, "to", _moved))
    return stack


def _moved(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """As ``Module.to``, which refuses to exchange a parameter for a fake one."""

    def move(tensor: Tensor) -> Tensor:
        kind = kwargs.get("memory_format") if tensor.ndim == 4 else None
        return tensor.to(*args, **({"memory_format": kind} if kind else {}))

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(move(parameter.data), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = move(buffer)
    return module


def check(config: ModelConfig, tensors: dict[str, Tensor], precision: str) -> str:
    """Run all that a model can do.

    Returns:
        A line of what was launched.

    Raises:
        AssertionError: An answer lies elsewhere or is of another type, or a step copies to or from the host.
    """
    model, name = Model(config, tensors, "cuda:0", precision), config.name
    bands = len(config.bands)
    image = torch.zeros(BATCH, bands, SIDE, SIDE)
    with Calls() as guess:
        answers = [model.reference(image, torch.zeros(BATCH, bands + 3, 32, 32))]
    on_gpu = [image.to("cuda:0") for _ in range(3)]
    with Calls() as sample:
        answers.append(model.sample(on_gpu[0], steps=STEPS, start=300, noise=on_gpu[1], reference=on_gpu[2]))
    if model.detector is not None:
        answers.append(model.detect(image))
    for answer in answers:
        assert answer.device.type == "cuda", answer.device
        assert answer.dtype == torch.float32, answer.dtype
    assert not sample.copied, f"{name} in {precision} copies inside the loop: {sample.copied}"
    _check_types(model, precision)
    conversions = sample.launched["to"] + sample.launched["_to_copy"]
    return (
        f"{name:<10} {precision}  launches: first guess {guess.launched.total()}, {STEPS} steps "
        f"{sample.launched.total()}, of these conversions {conversions}"
    )


def _check_types(model: Model, precision: str) -> None:
    kinds = {p.dtype for p in model._computing["network"].parameters() if p.ndim > 1}
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float32}, kinds


def main() -> None:
    """Check the models that are named, or those that are bundled."""
    if torch.version.cuda is None:
        sys.exit("this torch knows no CUDA: pip install torch from PyPI into an environment of its own")
    # fake tensors have no memory, and torch warns where it asks for their address
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
    for name in sys.argv[1:] or bundled_models():
        config, tensors = read_model_file(find_model(name))
        for precision in ("fp32", "bf16"):
            with FakeTensorMode(allow_non_fake_inputs=True) as mode, pretended():
                fake = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
                print(check(config, fake, precision), flush=True)


if __name__ == "__main__":
    main()
