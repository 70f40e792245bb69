"""What training changes in a picture, its boxes and its masks."""
