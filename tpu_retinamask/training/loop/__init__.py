"""The loops of a training and what they show: steps, lines, history."""
