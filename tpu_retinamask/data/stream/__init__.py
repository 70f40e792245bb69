"""From annotated images to batches: order, cache, pipeline, service, host."""
