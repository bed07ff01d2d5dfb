"""Trainings: alone, repeated, over several processes, or as a group.

Its files, in the order of imports:

- `repeats.py` trains a recipe several times at once, scored by the mean
- `ranks.py` one training over several processes
- `part.py` a trial and its repeats in a group
- `group_size.py` the fastest group size
- `refusals.py` what cannot be fused
- `threads.py` the number of threads
- `runner.py` `Runner` chooses the way
- `train.py` `train` with one seed or several

A repeated trial is several trainings in one process, each in its own thread, with its own checkpoint.
One runs at a time, and passes the turn on after each epoch, with the random state unchanged. The mean is
reported.
"""
