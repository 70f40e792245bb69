"""COCO json: read, written, converted, numbered and scored in one place."""
