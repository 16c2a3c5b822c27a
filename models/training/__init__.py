"""The stages of training, their losses and the loop."""
