"""Annotations and images in, `structures.Batch` out."""
