"""What is trained, and whether it can be.

Its files, in the order of imports:

- `backbones.py` an MLP, a convnet, torchvision's
- `fingerprint.py` equal for equal data and functions
- `quiet.py` a silent Trainer
- `watching.py` trains the unchanged network on a batch
- `data_facts.py` facts about the data
- `task.py` `Task`
- `rehearsal.py` tries recipes on a batch
- `making.py` whether networks of one recipe are equal
- `lookups.py` inputs that a network looks up
- `outputs.py` whether loss and metrics take what a network returns
- `kinds_left.py` the kinds that no check has removed
- `data_checks.py` what the data take
- `checks.py` all checks before the first trial

A kind that a network cannot take is not an error. Before the first trial, each kind that changes layers,
batches or steps is tried on a batch, training step included. A kind that fails or acts on nothing leaves
the space, and a line says so. It is an error if the user pinned it. The baseline's kinds that are not
searched, such as the kept weights of `Tricks.fine_tuning()`, stay in all trials.

"Is it better than what I have?" For a LightningModule the first trial is *yours*, the unchanged module.
Its recipe is `ModuleTricks.yours()`, with optimizer and schedule of kind `own`. No space draws it, so
the trial carries it. The verdict compares with it. The baseline of `ModuleTricks` keeps the module's
norms, dropout and weights.
"""
