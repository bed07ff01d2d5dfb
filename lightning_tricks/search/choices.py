"""The names that the command line offers, apart from what they stand for, which takes long to import."""

SAMPLERS = ("gp", "random", "tpe", "tricks")
PRUNERS = ("halving", "hyperband", "median", "none")
