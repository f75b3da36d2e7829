"""The pool as points in a space: clusters, neighbours, and the graph that they make."""
