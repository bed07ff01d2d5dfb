"""Several trainings as one program.

Its files, in the order of imports:

- `unfusible.py` what cannot be fused, and why
- `noise.py` each member's own dropout
- `stack.py` their networks as one
- `rows.py` steps for many
- `trainer.py` what hooks ask of a Trainer
- `member.py` one of a group
- `validation.py` each one's metrics
- `parity.py` whether each is as if alone
- `group.py` one forward and one backward for all
- `shape.py` which recipes go together
- `fused.py` the entry point

A small network leaves most of a device idle, because launching each operation takes the time. Trials of
one *shape* (equal networks, batches of one size) differ only in numbers. So K of them are trained as one
program, a *group*:

::

    K modules, as each would be alone            one stack                         one step for all
    ┌───────────────────────────────┐
    │ module 1   weights, buffers ──┼──views──► row 1 ┐
    │ module 2   weights, buffers ──┼──views──► row 2 ├─► vmap: one forward ─► K losses ─► one backward
    │    …             …            │             …   │                                        │
    │ module K   weights, buffers ──┼──views──► row K ┘   clip, step: row by row of K gradients ◄──┘
    └───────┬───────────────────────┘                     or, where the formula allows it, all at once
            └── callbacks, schedule, average, checkpoint, report: each module's own, on its own row

- A member behaves as if alone. It has the `TricksModule`, optimizer, callbacks and `TrialCallback` that
  Lightning's Trainer would drive. Their tensors are views of the stack, so a trick needs no second
  version. `MemberTrainer` answers their calls to the Trainer. Only the forward, the backward and, for
  formulas, the step run for all together.
- Each member has its own random generator, used with the same calls as torch's layers. Dropout is
  outside of what `vmap` traces (`noise.py`). So a trial has the same masks and data order as alone.
- Nothing is shared. In the sum of K losses each member's gradient is in its own row, so a NaN stays
  there. Norms and clipping go by row. A member that ends, is pruned or diverges leaves at the end of the
  epoch, and the stack shrinks.
- Steps. Members whose optimizers share a formula step at once, with a column of numbers in place of one
  (`rows.py`): on a CPU as many as the cache holds (one, for a large network), on a GPU all. Muon,
  normalized gradients and layer-wise learning rates step separately, on their views.
- Which go together. The repeats of a trial, and the seeds and learning rates of a verdict and an
  ablation, share one recipe. In a search the sampler draws the group's first member freely; the
  structure of its network is then fixed for the others (`shape.py`). A group has one member for each
  eight trials that the search has learned from, because members do not know each other's outcome. That
  costs the search less than we can measure (`benchmarks/search.py`); larger early groups cost half a
  point. The group's plan is stored with its trials; after a crash the next run draws the rest
  (`study/grouping.py`).
- How many. The worker measures this on its own device. It trains a few batches of 1, 2, 4, … members, up
  to the number wanted, until the time per member no longer falls (`group_size.py`). For convolutions on
  a CPU that is one. The result goes to all workers with their next jobs. A group that does not fit the
  memory is halved. The number that is *drawn* does not depend on this noisy measurement: if necessary a
  group is trained in parts.
- What cannot be fused is trained alone, and a line says why: networks whose Python looks at their data,
  what `vmap` refuses, `DataLoader`s, LightningModules with their own steps, Trainer settings. A trial
  whose worker died is also trained alone, so that it cannot take others with it.
- A parity check finds silent differences (`parity.py`). `vmap` ignores some things: a replaced buffer,
  hooks on gradients, the padding row of an embedding. So before a group trains, one member also passes a
  batch alone, in training and in evaluation, at slightly changed weights. Outputs, each parameter's
  gradient and each buffer's change must agree. Layers and loss must not have counted, cached or drawn
  from NumPy. It costs a few passes per group.
- Bitwise equality holds only within the same group, because sums are taken in another order otherwise.
  In float64, weights agree to 10⁻⁵ after 50 steps, for every variant of every trick
  (`tests/test_fusion.py`).
"""
