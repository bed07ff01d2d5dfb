"""The steps after a search: the verdict on its best recipes, the champion and its model."""
