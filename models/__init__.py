"""Cloud removal by diffusion enhancement: networks, schedule, sampling, weights. Tensors only."""
