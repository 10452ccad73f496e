"""Transformer decoders: object queries that attend to mask features."""
