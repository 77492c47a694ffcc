"""Post-training recipes: from a base language model to released SFT and Instruct checkpoints."""

__version__ = "0.1.0"
