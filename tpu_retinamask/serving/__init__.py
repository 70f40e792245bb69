"""A trained model behind HTTP: what is let in, how it is gathered into batches, and what is answered."""
