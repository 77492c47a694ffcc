"""What can be known to be wrong with a recipe before a GPU is taken: one subject a module, each a list of findings."""

from __future__ import annotations
