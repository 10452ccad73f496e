"""The commands of ``python -m vidseg.projects.slot_bert``, a module each; thin over functions."""
