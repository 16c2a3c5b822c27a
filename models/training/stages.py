"""Name the stages that a run may be of: without torch, so that the command line knows them."""

STAGES = (
    "reference",
    "diffusion",
    "weight",
    "joint",
    "detector",
    "adversarial",
    "variational",
    "conditional",
)
