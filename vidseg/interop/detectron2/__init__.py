"""Bridge to detectron2."""
