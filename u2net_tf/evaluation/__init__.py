"""Scores and the tables that show them."""
