"""From a finished run to a model file."""
