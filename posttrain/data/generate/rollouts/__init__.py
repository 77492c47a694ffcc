"""Rollouts: what is asked of a model for one row, and what becomes of the row; one kind a module."""
