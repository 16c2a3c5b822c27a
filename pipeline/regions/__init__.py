"""Where anything may change."""
