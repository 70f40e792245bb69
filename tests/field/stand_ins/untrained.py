"""Imported by a gin file: a dry run ends where its images are read."""

import logging

from tpu_retinamask.tasks import training

training.prepare = lambda recipe, sources, *args, **kwargs: sources
training.dry_run = lambda sources: logging.getLogger("tpu_retinamask").info("dry run: %d images", len(sources.train))
