"""The stages of training, their losses and the loop."""

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
"""Stages that a run may be of; here, so that the command line knows them without torch."""
