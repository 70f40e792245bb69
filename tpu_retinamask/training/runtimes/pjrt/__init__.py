"""The runtime that hands the step to PJRT: whatever accelerator has a plugin runs it."""
