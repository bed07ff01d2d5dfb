"""How a network runs, and changes to its layers.

Its files, in the order of imports:

- `torch_internals.py` torch without a public name
- `unfit.py` networks that no trick can act on
- `anatomy.py` one description of a network
- `layers.py` kinds known by class
- `norms.py` which modules normalize
- `graph.py` autograd's graph, from a result back
- `convolutions.py`
- `views.py` which parameter a tensor shows
- `seen.py` what a network did with its parameters
- `factors.py` which factor of a product is a weight
- `uses.py` records that
- `products.py` weights by how they are used
- `inputs.py` the feature axis, the number of outputs
- `dependence.py` which places depend on which
- `found_norms.py` the norms of a network that ran
- `teachers.py` copied parts
- `build.py` writes the anatomy
- `watch.py` runs a network for it
- `attach.py` new modules before and after a layer
- `dropout.py` fast masks
- `replace.py` replaces modules and attributes
- `weight_norm.py`
- `norm_places.py` swaps, inserts, moves norms
- `branches.py` residual branches, by tracing
- `batch_norm.py` gathers its statistics again
- `pretrained.py` whether a network is pretrained

A network is known by how it runs. Before any change one batch passes through it; a LightningModule runs
its own training step in Lightning's own Trainer. The result is its *anatomy*, one immutable description
for all tricks: which layers multiply with which weights, in which order; which are outputs (autograd's
graph, walked back from the result or the loss); which modules normalize, by class or by behavior; which
functions drop; what is tied, frozen, a copy, parametrized or zero on purpose; which axis of the inputs
holds the features. No trick reads the order of assignment, a name or an exact type. The anatomy is plain
data by module and parameter names, so it holds for every copy of the network, and a checkpoint carries
it. New norms and dropout are *attached* to a layer, as children that hooks call. The layer stays
unchanged and in place.

- Norms are swapped in place, in any module. If there are none, one is attached to each hidden layer. A
  module is a norm if its class is torch's own or declared (`declare_norm`), or if it behaves like one:
  it keeps the shape, ignores the scale of its inputs, and its gain enters the result linearly. So a norm
  with an activation is none. `torch.fx` finds residual branches, in the network, or in its children if
  its own code cannot be traced. The branch is the longer operand of a sum.
"""
