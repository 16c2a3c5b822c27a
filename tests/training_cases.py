"""Runs of every stage on small pairs, and their training."""

import pytest
from pair_cases import read_png

from decr_scene.models.data.loading import load_source
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.loop import Trainer

UNET = {"channels": 8, "multipliers": [1, 2], "attention_factors": [2], "heads": 1, "num_res_blocks": 1}

RIVALS = {
    "adversarial": {"reference": {"kind": "spagan", "width": 4}},
    "variational": {"reference": {"kind": "cvae", "width": 4, "side": 32}},
    "conditional": {"reference": {"kind": "diffcr", "width": 4}},
}


def run_of(stage, **changes):
    table = {
        "stage": stage,
        "bands": ["red", "green", "blue"],
        "steps": 6,
        "batch": 2,
        "crop": 32,
        "warmup": 2,
        "checkpoint_every": 3,
        "validate_every": 6,
        "reference": {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1},
        "data": [{"cloudy": "cloudy", "clear": "clear", "simulate": 0.3}],
        **changes,
    }
    if stage in RIVALS:
        table |= {
            "optimiser": "adam",
            "schedule": "constant",
            "weight_decay": 1e-5,
            **RIVALS[stage],
            **changes,
        }
    elif stage != "reference":
        own = {"prediction": "v", "noise": UNET, "weight": {**UNET, "scale_shift": False}}
        table["network"] = changes.get("network", own)
    return config_from_table(table)


def train(config, root, folder, initial=(), steps=None):
    trainer = Trainer.start(config, folder, initial)
    sources = [load_source(part, root, read_png) for part in config.data]
    if steps is None:
        trainer.run(sources, [], lambda step, figures: None)
        return trainer
    with pytest.raises(KeyboardInterrupt):
        trainer.run(sources, [], lambda step, figures: stop_after(step, steps))
    return trainer


def stop_after(step, last):
    if step == last:
        raise KeyboardInterrupt
