"""Synthetic studies that look like something, made by one seeded script."""
