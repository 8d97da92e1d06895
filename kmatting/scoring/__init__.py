"""Scoring mattes against true alphas."""
