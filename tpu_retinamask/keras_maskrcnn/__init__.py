"""keras-maskrcnn as its users know it: its generator, its outputs, its losses, its weights."""
