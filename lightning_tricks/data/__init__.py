"""Where samples come from.

Its files, in the order of imports:

- `tensor_loader.py` slices whole batches
- `arrays.py` reads and checks arrays
- `halves.py` which samples validate
- `in_memory.py` `InMemoryData`
- `loaders.py` the user's `DataLoader`s
- `batches.py` their batch size

Only training iterates a loader that is in use, because it may have only one iterator. Scaling iterates a
copy before training. Batch norm's statistics come from the first 32 batches of the epoch, which are
kept.
"""
