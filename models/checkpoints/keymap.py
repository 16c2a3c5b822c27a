"""Map entries of published checkpoints to our tensors and back, without loss in either direction.

Pairs of paths relate our modules to those of a published checkpoint; names, shapes and the way back follow
from them. Entries that the published networks never use are listed by name and shape.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.mdsa import COLUMNS, DENSE_LAYERS, DILATIONS, GROWTH, MDSA, ROWS, TURN
from decr_scene.models.networks.mprnet import MPRNet
from decr_scene.models.networks.noise_network import NoiseNetwork
from decr_scene.models.networks.unet import UNetConfig

WEIGHT_PREFIXES = ("sjlnet.", "wc.")  # of the weight allocation, in the first and the second repository

Paths = Iterator[tuple[str, str]]


class Entry(NamedTuple):
    """One published entry: the name of our tensor (``None``: it is never used), and its published shape."""

    ours: str | None
    shape: tuple[int, ...]


KeyMap = dict[str, Entry]


def network_keys(network: NoiseNetwork, prefix: str = WEIGHT_PREFIXES[0]) -> KeyMap:
    """Return the key map of a diffusion checkpoint, with the weight allocation under ``prefix``."""
    config = network.config
    paths = {f"noise_net.{ours}": theirs for ours, theirs in _unet_paths(config.noise)}
    paths |= {f"weight_net.{ours}": prefix + theirs for ours, theirs in _unet_paths(config.weight)}
    return _keys(network, paths)


def reference_keys(net: MPRNet | MDSA) -> KeyMap:
    """Return the key map of a reference checkpoint."""
    return _mn_keys(net) if isinstance(net, MPRNet) else _mdsa_keys(net)


def import_state(state: Mapping[str, Tensor], keys: KeyMap, what: str) -> dict[str, Tensor]:
    """Convert a published state dict that has all entries of ``keys`` and no other to our tensors.

    Raises:
        CheckpointError: Entries are missing, unknown or of another shape, or copies of one tensor differ.
    """
    check_shapes(shapes(state), {name: entry.shape for name, entry in keys.items()}, what)
    tensors: dict[str, Tensor] = {}
    for name, entry in keys.items():
        if entry.ours is None:
            continue
        tensor = _reshaped(state[name], name)
        if entry.ours in tensors and not torch.equal(tensors[entry.ours], tensor):
            raise CheckpointError(
                f"{what}: {name} differs from its other copies, the network shares one tensor"
            )
        tensors[entry.ours] = tensor
    return tensors


def export_state(tensors: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    """Return the published state dict of our tensors, with zeros for unused entries."""
    return {
        name: torch.zeros(entry.shape) if entry.ours is None else tensors[entry.ours].reshape(entry.shape)
        for name, entry in keys.items()
    }


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(
    actual: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Raises:
        CheckpointError: Some are missing, not expected, or of another shape; the first few of each are named.
    """
    wrong = [n for n in expected if n in actual and actual[n] != expected[n]]
    problems = {
        "missing": [n for n in expected if n not in actual],
        "not expected": [n for n in actual if n not in expected],
        "of another shape": [f"{n} {actual[n]} instead of {expected[n]}" for n in wrong],
    }
    described = [f"{len(names)} {kind}: {_first_names(names)}" for kind, names in problems.items() if names]
    if described:
        raise CheckpointError(
            f"{what}: {len(actual)} tensors found, {len(expected)} expected; {'; '.join(described)}"
        )


def _first_names(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", .." if len(names) > count else "")


def _keys(module: nn.Module, paths: Mapping[str, str]) -> KeyMap:
    keys: KeyMap = {}
    for name, tensor in module.state_dict().items():
        path, _, leaf = name.rpartition(".")
        published = f"{paths[path]}.{leaf}" if path else paths[leaf]
        # Projections of the attention are 1-D convolutions there.
        tail = (1,) if published.endswith(("qkv.weight", "proj_out.weight")) else ()
        keys[published] = Entry(name, (*tensor.shape, *tail))
    return keys


def _reshaped(tensor: Tensor, published: str) -> Tensor:
    return tensor.squeeze(-1) if published.endswith(("qkv.weight", "proj_out.weight")) else tensor


def _unet_paths(config: UNetConfig) -> Paths:
    """Yield our paths and theirs: they number all blocks in one row, resampling included."""
    yield from (("embedding.linear1", "time_embed.0"), ("embedding.linear2", "time_embed.2"))
    yield "stem", "input_blocks.0.0"
    down, up = config.num_res_blocks, config.num_res_blocks + 1
    for level in range(len(config.widths)):
        first = 1 + level * (down + 1)
        for j in range(down):
            yield from _block_paths(f"encoder.{level}.blocks.{j}", f"input_blocks.{first + j}")
        yield f"encoder.{level}.resample", f"input_blocks.{first + down}.0.op"
    yield from _block_paths("middle.first", "middle_block")
    yield from _residual_paths("middle.second.residual", "middle_block.2")
    for number, level in enumerate(reversed(range(len(config.widths)))):
        first = number * up
        for j in range(up):
            yield from _block_paths(f"decoder.{number}.blocks.{j}", f"output_blocks.{first + j}")
        place = 2 if config.attends(level) else 1
        yield f"decoder.{number}.resample.conv", f"output_blocks.{first + up - 1}.{place}.conv"
    yield from (("norm", "out.0"), ("head", "out.2"))


def _block_paths(ours: str, theirs: str) -> Paths:
    yield from _residual_paths(f"{ours}.residual", f"{theirs}.0")
    for a, b in (("norm", "norm"), ("qkv", "qkv"), ("proj", "proj_out")):
        yield f"{ours}.attention.{a}", f"{theirs}.1.{b}"


def _residual_paths(ours: str, theirs: str) -> Paths:
    yield from ((f"{ours}.norm1", f"{theirs}.in_layers.0"), (f"{ours}.conv1", f"{theirs}.in_layers.2"))
    yield f"{ours}.embed", f"{theirs}.emb_layers.1"
    yield from ((f"{ours}.norm2", f"{theirs}.out_layers.0"), (f"{ours}.conv2", f"{theirs}.out_layers.3"))
    yield f"{ours}.skip", f"{theirs}.skip_connection"


def _mn_keys(net: MPRNet) -> KeyMap:
    keys = _keys(net, {"slope": "slope", **dict(_mn_paths())})
    slope = keys.pop("slope")
    squeezes = [name for name in keys if name.endswith("CA.conv_du.0.weight")]  # one in every block
    return keys | {name.replace("CA.conv_du.0", "body.1"): slope for name in squeezes}


def _mn_paths() -> Paths:
    for k in (1, 2, 3):
        yield f"shallow{k}.conv", f"shallow_feat{k}.0"
        yield from _channel_attention_paths(f"shallow{k}.block", f"shallow_feat{k}.1")
    for k in (1, 2):
        yield from _mn_coder_paths(k)
    for k, between in ((1, "12"), (2, "23")):
        yield f"merge{k}", f"concat{between}"
        for a, b in (("mix", "conv1"), ("to_image", "conv2"), ("from_image", "conv3")):
            yield f"sam{k}.{a}", f"sam{between}.{b}"
    for level in range(3):
        yield from _mn_level_paths(level)
    yield "tail", "tail"


def _mn_coder_paths(k: int) -> Paths:
    """Yield the paths of encoder and decoder of stage ``k``."""
    for coder in ("encoder", "decoder"):
        for level in range(3):
            for j in range(2):
                theirs = f"stage{k}_{coder}.{coder}_level{level + 1}.{j}"
                yield from _channel_attention_paths(f"{coder}{k}.levels.{level}.blocks.{j}", theirs)
    for level in range(2):
        upper, lower = level + 1, level + 2
        yield f"encoder{k}.down.{level}.conv", f"stage{k}_encoder.down{upper}{lower}.down.1"
        yield f"decoder{k}.up.{level}.conv", f"stage{k}_decoder.up{lower}{upper}.up.1"
        yield from _channel_attention_paths(f"decoder{k}.skips.{level}", f"stage{k}_decoder.skip_attn{upper}")


def _mn_level_paths(level: int) -> Paths:
    """Yield the paths of one level between the stages and in the third stage."""
    orb = f"stage3_orsnet.orb{level + 1}.body"
    for j in range(8):
        yield from _channel_attention_paths(f"refine.blocks.{level}.chain.blocks.{j}", f"{orb}.{j}")
    yield f"refine.blocks.{level}.conv", f"{orb}.8"
    for coder, short in (("encoder", "enc"), ("decoder", "dec")):
        yield f"cross.{coder}.{level}", f"stage2_encoder.csff_{short}{level + 1}"
        yield f"refine.{coder}.{level}.conv", f"stage3_orsnet.conv_{short}{level + 1}"
        for j in range(level):
            place = f"{level}.{j}" if level > 1 else f"{level}"
            yield f"refine.{coder}.{level}.up.{j}.conv", f"stage3_orsnet.up_{short}{place}.up.1"


def _channel_attention_paths(ours: str, theirs: str) -> Paths:
    yield from ((f"{ours}.conv1", f"{theirs}.body.0"), (f"{ours}.conv2", f"{theirs}.body.2"))
    yield from ((f"{ours}.squeeze", f"{theirs}.CA.conv_du.0"), (f"{ours}.excite", f"{theirs}.CA.conv_du.2"))


def _mdsa_keys(net: MDSA) -> KeyMap:
    blocks = dict(_mdsa_blocks())
    paths = dict(_mdsa_paths())
    for ours, theirs in blocks.items():
        paths |= dict(_dense_paths(ours, theirs))
    keys = _keys(net, paths)
    width = net.enter.out_channels
    for theirs in blocks.values():
        keys |= _unused(theirs, keys[f"{theirs}.conv_1x1_final.weight"].shape[0])
    keys |= _unused_conv("offset_conv1", 4 * width, 2 * width) | _unused_conv(
        "offset_conv2", 2 * width, 4 * width
    )
    return keys


def _mdsa_paths() -> Paths:
    """Yield the paths of everything but the blocks."""
    yield from (("mixing", "coefficient"), ("enter", "conv_in"), ("leave", "conv_out"))
    names = ["conv1", *(f"conv{k}_atrous" for k in range(2, len(DILATIONS))), f"conv{len(DILATIONS)}"]
    for k, name in enumerate(names):
        yield f"context.{k}", name
    for i in range(ROWS - 1):
        for conv in ("conv1", "conv2"):
            yield from ((f"down.{i}_{j}.{conv}", f"downsample_module.{i}_{j}.{conv}") for j in range(TURN))
        for conv in ("deconv", "conv"):
            ways = range(TURN, COLUMNS)
            yield from ((f"up.{i}_{j}.{conv}", f"upsample_module.{i}_{j}.{conv}") for j in ways)
            yield f"exit_up.{i}.{conv}", f"upsamle{ROWS - 1 - i}.{conv}"


def _mdsa_blocks() -> Paths:
    yield from (("enter_block", "rdb_in"), ("exit_block", "rdb_out"))
    yield from (("exit_blocks.1", "rdb_2_1"), ("exit_blocks.0", "rdb_1_1"))
    for i in range(ROWS):
        yield from ((f"blocks.{i}_{k}", f"rdb_module.{i}_{k}") for k in range(COLUMNS - 1))


def _dense_paths(ours: str, theirs: str) -> Paths:
    for dense, layers, fuse in (
        ("content", "residual_dense_layers", "conv_1x1_a"),
        ("detail", "residual_dense_layers_no_style", "conv_1x1_b"),
    ):
        for k in range(DENSE_LAYERS):
            yield f"{ours}.{dense}.layers.{k}", f"{theirs}.{layers}.{k}.conv"
        yield f"{ours}.{dense}.fuse", f"{theirs}.{fuse}"
    for a, b in (
        ("style_r", "conv_1x1_style"),
        ("style_t", "conv_1x1_style_rt"),
        ("statistics", "style"),
        ("gain_r", "conv_gamma_r"),
        ("bias_r", "conv_beta_r"),
        ("gain_t", "conv_gamma_t"),
        ("bias_t", "conv_beta_t"),
        ("gate_a", "conv_att_A"),
        ("gate_b", "conv_att_B"),
        ("final", "conv_1x1_final"),
        ("squeeze", "ca.ca.0"),
        ("excite", "ca.ca.2"),
    ):
        yield f"{ours}.{a}", f"{theirs}.{b}"


def _unused(block: str, channels: int) -> KeyMap:
    """Return the entries of a block that its forward pass never uses."""
    keys = {f"{block}.coefficient": Entry(None, (1, 2))}
    for k in range(DENSE_LAYERS):
        keys |= _unused_conv(f"{block}.rt_residual_dense_layers.{k}.conv", channels + GROWTH * k, GROWTH)
    keys |= _unused_conv(f"{block}.conv_1x1_c", channels + GROWTH * DENSE_LAYERS, channels, kernel=1)
    return (
        keys
        | _unused_conv(f"{block}.conv_a", channels, channels)
        | _unused_conv(f"{block}.conv_r", channels, 1)
    )


def _unused_conv(name: str, channels: int, out: int, kernel: int = 3) -> KeyMap:
    weight = Entry(None, (out, channels, kernel, kernel))
    return {f"{name}.weight": weight, f"{name}.bias": Entry(None, (out,))}
