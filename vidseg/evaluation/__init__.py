"""Evaluators and the metric functions under them."""
