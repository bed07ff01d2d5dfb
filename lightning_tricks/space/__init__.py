"""The type is the search space."""
