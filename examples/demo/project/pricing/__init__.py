"""Prices of a small shop, in whole cents."""
