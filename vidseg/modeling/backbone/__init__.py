"""Backbones: images to multi-scale features."""
