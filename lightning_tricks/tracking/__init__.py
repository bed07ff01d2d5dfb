"""What MLflow shows; the only folder that imports it.

Its files, in the order of imports:

- `addresses.py` files behind URIs
- `names.py` metric names
- `format.py` cell text
- `run_update.py` what to write about a trial
- `client.py` connects
- `artifacts.py` a run's files
- `registry.py` models
- `holdings.py` what MLflow holds
- `recipes.py` reads recipes back
- `loading.py` loads modules
- `view.py` the table and its columns
- `writer.py` the writing thread
- `tracker.py` one study
- `trial_updates.py` a trial in the study's words
- `agreement.py` whether Optuna and MLflow agree
- `mlflow_archive.py` a study in MLflow

Params are the flattened recipe (`optimizer`, `optimizer.lr`: one column for all optimizers), with
numbers rounded to what a cell shows. `FINISHED`, `KILLED` and `FAILED` mean complete, pruned and failed.
A trial's name, role and description follow from its outcome and the study's *state*: its baseline,
champion and test scores, all stored in Optuna. MLflow sorts by one column, so the table is sorted by the
metric `ranking`: the score of a fully trained trial, and a higher number for the champion, whose search
score need not be the best. The champion is registered with its weights, recipe and versions as plain
files, from which `load_with_tricks` rebuilds the module without unpickling. If its network can be
exported, the version is also an exported program, which takes raw inputs in batches of any size. The
runs table has a saved view, an undocumented tag that the UI writes. Without it the table would show
neither score nor trick, and the verdict's runs would stand between ranked and unranked trials.

Optuna holds the truth. A finished trial stores its recipe, curves and reason in Optuna, so MLflow can be
rewritten at any time. A thread writes MLflow in batches; nothing waits for it. It retries a server that
is down every two seconds. What is missing at the end is written when the study runs again. `--check`
compares the two. `--repair` rewrites what differs and removes leftovers of an earlier write. A run
without it removes only what surely belongs to this study.
"""
