"""Stateless building blocks: attention, positional encodings, deformable sampling, MLP."""
