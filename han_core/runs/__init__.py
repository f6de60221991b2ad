"""Long runs: checkpoints, several processes, progress."""
