"""How good a model is: tasks, judges, and tables of any number of checkpoints."""
