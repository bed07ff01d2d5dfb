"""What follows a search.

Its files, in the order of imports:

- `reruns.py` given recipes over given seeds
- `finalists.py` the best recipes by evidence
- `evaluation.py` model outputs on a split
- `models.py` loads, tests, registers models
- `trained.py` models of one study
- `batch_scores.py` a LightningModule's scores by batch
- `model_scores.py` how good the models are
- `allowance.py` how many trainings it may take
- `comparison.py` best finalist against baseline
- `judging.py` from the finalists to the registered champion
- `ablation.py` the champion without each trick
- `reporting.py` the report and the commands that it names
- `conclusion.py` final words about a study

What follows a search is another session. A verdict and an ablation are lists of recipes and seeds.
`Reruns` puts them into the queue of a second study, `<name>.verdict` or `<name>.ablation`, so they
survive crashes with the same code. The findings are stored in the search's study. The seeds that choose
a recipe or a learning rate never report its score.

The champion is never worse than what you have. The baseline stays the champion unless another recipe is
confirmed to be better. One recipe is tested, on seeds and samples that took no part in choosing it:

::

    search ──► finalists ──► candidate ──► candidate − baseline ──► label, champion
            the best by    sequential     fresh seeds, added until
            evidence       halving        the interval is narrow
    samples:  ╰────── chooser half ─────╯ ╰─ other half, and test ─╯

- *Samples.* Whole data are split again for each seed. Half of the non-test samples validate the search,
  its repeats and the halving. The other half validates only the comparison (`InMemoryData.split_anew`),
  together with the test split. Data with given splits are compared on the test split. Without one, they
  are compared on the samples that chose them, and the error is divided by the number of recipes that the
  search tried (Bonferroni).
- *Interval.* A two-way analysis of variance in closed form allows for other seeds and other samples
  (`crossed.py`). An interval over seeds alone would miss what all seeds share: one finite set of
  samples.
- *Looks.* Seeds are added until the interval is narrower than the margin, never because of where it
  lies. So the estimate has no bias. The levels hold at any look (`looks.py`), and for all verdicts of a
  study together.
- *Cost.* A verdict takes as many trainings as the search has trials and repeats. 40% choose the
  candidate, the rest compares it.
"""
