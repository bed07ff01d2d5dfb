"""The tricks in Lightning's hooks."""
