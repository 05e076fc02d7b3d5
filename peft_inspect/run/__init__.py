"""Executing one step and putting everything back, with weights or without."""
