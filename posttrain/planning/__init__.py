"""What a recipe will cost before it is run."""
