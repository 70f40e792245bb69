"""What backbones, pyramid and heads are built of, and where on a canvas the picture lies."""
