"""One training through Lightning, from recipe to result.

Its files, in the order of imports:

- `result.py` `Epoch`, `Result`
- `job.py` a trial on its way to a worker
- `training.py` `Training`, all that one needs
- `checkpoints.py` their content, and how to read it
- `callback.py` reports, stops and saves
- `fit.py`

Checkpoints are untrusted input. They hold tensors and plain data and are read without unpickling. They
leave out what the task has anyway, such as a module's hyperparameters. If one does not fit, a warning
says so and its trial starts again.
"""
