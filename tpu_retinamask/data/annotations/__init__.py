"""Annotated images as people have them: files of annotations read, checked and listed with line numbers."""
