"""What a single number cannot say of an answer: its texture, how it looks, how sure it is."""
