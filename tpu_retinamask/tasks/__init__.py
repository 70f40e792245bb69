"""What programs and notebooks have done: a training from its sources to its end, a trained model at work."""
