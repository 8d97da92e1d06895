"""What is written for a photo: names of files, and the pictures themselves."""
