"""Measurements: what a night costs, side by side with what one would write otherwise. Run with ``make bench``."""
