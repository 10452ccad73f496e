"""Pixel decoders: backbone features to mask features."""
