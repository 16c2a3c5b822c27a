"""How a run lives in its process and its machine: forks, locks, signals, and who follows it."""
