"""A file per stage, a class per trick.

Its files, in the order of imports:

- `batch.py`
- `scaling.py`
- `initialization.py`
- `normalization.py`
- `dropout.py`
- `residual.py`
- `transfer.py`
- `weight_decay.py`
- `optimizers/`
- `sharpness.py`
- `clipping.py`
- `length.py` epochs of a whole training
- `schedules.py`
- `averaging.py`
- `stopping.py`
- `augmentation.py`
- `targets.py`
- `papers.py` papers cited in docstrings
- `kinds.py` a stage's kinds as a table
- `acting.py` which stages change layers, weights or batches
- `recipe.py` `Tricks`: one field per stage
- `recipe_types.py` recipes read back

- An optimizer is one pure function, `update(gradient, state, lr) → step`, of elementwise arithmetic.
  `FlatOptimizer` concatenates a group's gradients, so a step costs a few tensor operations for any
  number of parameters. Weight decays act around the formula, the same for all. A parameter without a
  gradient in a step stays unchanged: a group is split into blocks of parameters that had gradients at
  the same steps, each with one state. The same function takes a stack of gradients and a vector of
  learning rates.

- From the start of a validation to the next batch, schedule-free weights are shown as their average,
  because other callbacks swap their own weights in and out between.
- Weight norm is applied after the weights are drawn, every norm layer before.
- Validation, checkpoints and the end of training see the averaged weights, with batch-norm statistics
  gathered again from batches of the epoch. Training continues on the raw weights. Lightning's
  `WeightAveraging` copies the module before its scaling is fitted and its device is known, shows the
  first weights until an average begins, and saves states without the version of layers. Ours exchanges
  tensors in place.
- Early stopping scores and restores the best epoch, by the validation at its end. The pruner sees the
  same number: the score that the trial would have if it stopped now.
- A loss, gradient or score that is not finite ends the trial before the weights take it in. Optuna
  records it as pruned, so the sampler learns from it. Reading a number from an accelerator waits for the
  device, so there it is checked every sixteenth step and at the end of each epoch.
- Standardized inputs have their deviation floored at a twentieth of their range, and all scaled inputs
  are clipped at ±8. Otherwise near-constant features would send unseen values arbitrarily far.
"""
