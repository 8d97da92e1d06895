"""What `kmatting benchmark` measures, a module for each group of rows."""
