"""Saving, resuming and reading published weights."""
