"""Rows that a language model writes: requests, the engines that answer them, rollouts over rows, and the run of all."""
