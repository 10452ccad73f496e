"""Reading, writing and drawing on video."""
