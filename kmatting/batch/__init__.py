"""Matting millions of photos with Apache Beam: `python -m kmatting.batch`."""
