"""As much of detectron2's registries, configs and backbones as the bridge touches; written here."""
