"""The training loop, its hooks and the glue from config to run."""
