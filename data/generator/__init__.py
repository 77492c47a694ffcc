"""The small world of the sample data: its words, its prose, its questions and its faulty answers."""
