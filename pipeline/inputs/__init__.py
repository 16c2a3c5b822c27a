"""What others made: what it is called, which state of it is meant, and what is written in it."""
