"""Other dates of the same ground: laid over a scene, brought into its colours, taken where it has cloud."""
