"""Residual networks as their papers define them, one file a paper, and the catalogue of their names."""
