"""Forms in which a trained model leaves, by name."""
