"""A benchmark with exact truth: scenes by seed that no training saw."""
