"""The commands of ``python -m vidseg.projects.rqvae``, a module each; thin over functions."""
