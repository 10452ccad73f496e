"""The commands of ``python -m vidseg.projects.persistence``, a module each; thin over functions."""
