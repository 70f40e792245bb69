"""Checkpoints of a run: files, state, and the room they need."""
