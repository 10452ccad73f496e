"""Meta-architectures: whole models built from the four parts."""
