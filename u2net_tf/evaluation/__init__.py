"""Scores predictions and summarizes the scores in tables."""
