"""What the command line says and asks: its options, its answers, and how far a run has come."""
