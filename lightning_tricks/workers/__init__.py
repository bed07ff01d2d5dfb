"""Where trials run.

Its files, in the order of imports:

- `base.py` jobs, events, `Workers`
- `inline.py` in this process
- `ray_address.py` whether a cluster answers
- `ray_driver.py` Ray's driver, in its own process because it may die
- `ray_actor.py` trains in an actor
- `ray_process.py` the driver's process, and the connection to it
- `ray_workers.py`
- `placement.py` how many workers, and where

Workers know neither Optuna nor an archive. Their interface is `Workers`. `submit(job)` gives a recipe, a
seed and a checkpoint's path to a free worker. `wait(callback)` passes on `Reported`, `Ended` or `Lost`;
the answer to a report says whether to stop. `Inline` trains in this process. `RayWorkers` trains in
actors that stream their reports; it sends a stop as a call on the actor's second thread. No worker waits
for a decision.

Crashes. Ray reports a dead actor; the coordinator kills a silent one. It starts a new actor, and gives
the trial with its last checkpoint to the first free worker. The randomness of an epoch follows from the
trial's seed and the epoch's number, so no random state is saved, and the score is the same as without
the crash. After three losses the trial is given up. The processes of a DDP trial end when the pipe to
their parent closes; Ray's end with the program that started Ray. When Ray's own processes die, Ray ends
its driver's process. So the driver is one of ours, `ray_driver.py`, which the coordinator restarts.
"""
