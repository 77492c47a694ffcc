"""The kinds of tasks: what each asks, and how an answer is scored."""
