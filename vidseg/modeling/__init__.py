"""Models: registries, backbones, decoders, meta-architectures, matching and losses."""
