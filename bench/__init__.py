"""Measures what the program costs beside the work itself."""
