"""The training step, its loop and its state."""
