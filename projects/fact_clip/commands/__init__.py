"""The commands of ``python -m vidseg.projects.fact_clip``, a module each; thin over functions."""
