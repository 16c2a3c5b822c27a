"""Training of the reference, the noise network and the weight network."""
