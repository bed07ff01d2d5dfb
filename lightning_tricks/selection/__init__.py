"""Which recipe is best, and by how much.

Its files, in the order of imports:

- `intervals.py` means and differences
- `crossed.py` intervals over seeds and samples
- `looks.py` how often one may look at an interval
- `halving.py` chooses one finalist
- `places.py` the order of trials that stopped at different epochs
- `evidence.py` scores shrunk toward similar recipes
- `kept.py` what a storage keeps of it
- `terms.py` the user's verdict settings
- `result.py` a verdict's content
- `arms.py` recipes that differ by one trick
- `ablation.py` each trick's worth
"""
