"""Model files: what loads each format, their metadata, and the shipped ones."""
