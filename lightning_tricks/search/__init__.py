"""Everything that talks to Optuna.

Its files, in the order of imports:

- `choices.py` names for the command line
- `passing_on.py` storages that wrap another
- `draft.py` a trial while it is drawn
- `optuna_internals.py` Optuna without a public call
- `storage/` files that survive crashes, waiting for databases, one program per study
- `keys.py` storage keys
- `outcomes.py` how each trial ended
- `inspection.py` whether a storage is damaged
- `order.py` which is better
- `promotion.py` which paused trials go on
- `sampling/` samplers, each option's effect on the score, whether further trials matter, recipes that
  are not drawn
- `pruners.py`
- `studies.py` creates and loads
- `dashboard.py` notes for optuna-dashboard
- `identity.py` what must be equal for comparable trials
- `study_state.py` baseline, champion, test scores
- `story.py` a trial in a line
- `observer.py` the listener's interface
- `archive.py` where people find a study
- `callback.py` `PruningCallback` for any Trainer

Asking takes time, so with several workers the next recipe is ready before one is free. TPE and the
median pruner look only at the best and the latest 200 trials, because their cost grows with the number.
TPE sees running trials as the worst, so it proposes something else. A good trial needs a good variant in
nearly all of ten or more stages, which TPE alone does not find in a few dozen trials. So a linear
regression, not TPE, chooses the kinds: it estimates what each adds to the score, beginning with a prior
(`sampling/prior.yaml`, or earlier studies). A proposal changes at most three choices, the most
promising, of the best trial so far (at first the baseline). A repeated proposal takes over the known
outcome, does not count, and doubles the uncertainty of the effects until something new is proposed.

A trial is in Optuna completely or not at all. The sampler draws it in advance, on a storage view with
one more trial (`draft.py`). One write then stores all of it.

A study is a function of its seed, and of whether trials are trained as one. The size of groups changes
only the last bits, which hardly ever decide anything (digits took the same way with 8 and with 16). A
trial's seed follows from the study's seed and the trial's number. The sampler is created again, from
such seeds, for each trial and each separately drawn parameter. So with one worker a study that was
killed, interrupted or extended reaches the same trials and scores as an undisturbed one. With several
workers the proposals depend on which trials had ended; the score of a recipe with its number does not. A
trial that was running returns to `WAITING` with its number and parameters, and continues from its
checkpoint.

The identity of a study is its space, monitor, epochs, seed and task, with fingerprints of data,
backbone, loss, metrics and settings. If it changed, scores are not comparable and the study is refused,
unless `--same-task` says that they are. A fingerprint uses the source of functions, the layers of
networks, and a thousand samples of the data.

One program per study. A file lock ensures this on one file system. Machines that share only a database
see a number there that the holder counts up. If it stands still for 30 s, another program takes the
study over. Before each write to Optuna or MLflow a program checks that it still holds the study. If not,
it ends.
"""
