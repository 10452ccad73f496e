"""Data sets, transforms, mappers, samplers and loaders."""
