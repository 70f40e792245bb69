"""What predict writes of the objects that it found: pictures and files of several forms."""
