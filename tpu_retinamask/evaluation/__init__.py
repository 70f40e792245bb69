"""COCO metrics, results files and pictures."""
