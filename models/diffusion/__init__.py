"""Schedule, denoiser and sampler: formulas without weights."""
