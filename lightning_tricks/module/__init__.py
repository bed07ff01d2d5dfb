"""Tricks in Lightning's hooks.

Its files, in the order of imports:

- `lightning_internals.py` Lightning without a public call
- `health.py` gradient norms, divergence
- `measures.py` accuracy
- `class_loss.py` probabilities for class-weighted losses
- `singles.py` batches of one sample
- `consistency.py` whether a recipe's parts fit together
- `hooks.py` passes each hook to its trick
- `tricks_module.py` `TricksModule`
- `ensemble.py` several networks as one
- `conversion.py` `with_tricks` for a user's module, and back
- `kept.py` trained modules as plain files

- Probabilities as targets are scaled so that a loss with class weights or ignored targets equals torch's
  own `label_smoothing` of class numbers (`class_loss.py`).
- Augmentation, erasing, mixing and smoothing act in `learned_loss`, on a batch on the device. Validation
  sees unchanged data. Losses of auxiliary heads are added there.
- A user's LightningModule gets a subclass of its class and of `TricksHooks`, which is all of
  `TricksModule` except the forward and the steps.

Both packages of Lightning. `pytorch_lightning` and `lightning` hold the same code but not the same
classes. A trial uses the Trainer, callbacks and plugins of the module's package. A class that derives
from both adapts ours.
"""
