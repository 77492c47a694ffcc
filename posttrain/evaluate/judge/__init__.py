"""Answers judged by a language model: graded from 1 to 10, or compared in pairs; MT-Bench and AlpacaEval 2."""
