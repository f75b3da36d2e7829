"""The rounds: the callback and all that it does between two trainings."""
