"""Inspection of the XLA program: which ops the graph holds."""
