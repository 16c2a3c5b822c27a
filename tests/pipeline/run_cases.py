"""A small training run: its TOML, and the command that runs it."""

TOML = """
stage = "reference"
bands = ["red", "green", "blue"]
steps = {steps}
batch = {batch}
accumulate = {accumulate}
crop = 32
warmup = 2
precision = "fp32"
checkpoint_every = {every}
validate_every = {every}

[reference]
width = 8
multipliers = [1, 2]
blocks = 1
middle_blocks = 1

[[data]]
folder = "."
simulate = 0.3
"""


def toml(folder, steps=6, batch=2, accumulate=1, every=3, more=""):
    path = folder / f"run{steps}x{batch}x{accumulate}.toml"
    path.write_text(TOML.format(steps=steps, batch=batch, accumulate=accumulate, every=every) + more)
    return path


def command(config, data, out):
    return ["train", "reference", "--config", config, "--data", data, "--out", out, "--quiet"]
