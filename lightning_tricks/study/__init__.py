"""One run of a study.

Its files, in the order of imports:

- `signals.py` Ctrl-C and SIGTERM
- `progress.py` the bar or the lines
- `folder.py` checkpoints, best weights
- `folder_archive.py` reports and models without MLflow
- `history.py` finished trials
- `observers.py` who listens to every study
- `spending.py` what is left of a budget
- `session.py` what a run holds
- `trial_decisions.py` when a trial stops, is lost or given up
- `grouping.py` how many trials are trained as one
- `pauses.py` the paused trials
- `proposals.py` what comes next
- `growth.py` when to move to several workers
- `search_plan.py` how many trials a budget affords
- `coordinator.py` sends jobs, receives events

Only the process that the user started asks and tells Optuna, and only it writes to MLflow. A `Session`
holds what one run needs, unchanged from start to end: study, task, space, folder, history, archive. The
`Coordinator` trains its trials and informs the observers: the history, the folder's checkpoints, the
archive, the progress line, the dashboard's notes, the user's own. The *archive* is where people find the
study: MLflow, or files in the study's folder; then nothing of MLflow is imported.

A decision holds, however late a worker learns of it. A pruned trial has the epochs up to the decision.
Later epochs and repeated reports after a restart are dropped. So a trial's outcome never depends on the
speed of messages.

A trial can pause (`study/pauses.py`). Its job says after which epoch; the worker writes a checkpoint
there and ends. Paused trials wait in Optuna's queue, with their outcome so far. Whenever a worker is
free, `promotion.py` decides from Optuna's data alone whether one goes on, so a restarted program decides
the same. What goes on continues in the way it began, alone or in a group (of one, if need be), because
the two kinds of checkpoint differ. Trials that stopped at different epochs are put in order by
`places.py`.

A budget is counted in epochs (`spending.py`), from the trials in Optuna, so a restarted program counts
the same. A time becomes epochs by the time that one took so far; each outcome holds the study's age. A
search may draw another trial if its share still covers what runs, what is promised to paused trials, and
the new one. The moment at which it may not is stored, as a number of trials. A budget of epochs thus
gives the same study each time. The seeds of a verdict follow from what is left, never from scores.
"""
