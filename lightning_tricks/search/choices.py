"""Sampler and pruner names for the command line, in a file of their own that is quick to import."""

SAMPLERS = ("gp", "random", "tpe", "tricks")
PRUNERS = ("halving", "hyperband", "median", "none", "pause")
