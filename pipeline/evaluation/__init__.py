"""How good an answer is, measured on pairs."""
