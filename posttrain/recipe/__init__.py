"""Recipes: what they may say (`schema`) and how they are read (`load`)."""

from __future__ import annotations

from posttrain.recipe.files import builtin_recipes, find_recipe
from posttrain.recipe.load import LoadedRecipe, load
from posttrain.recipe.origins import Origin
from posttrain.recipe.render import render_resolved

__all__ = ["LoadedRecipe", "Origin", "builtin_recipes", "find_recipe", "load", "render_resolved"]
