"""Runtimes by name: what executes a step, and where."""
