"""Batches of one sample, of which batch norm can take no deviation."""

import warnings

from torch import nn

from lightning_tricks.surgery.batch_norm import batch_norms

ONE_SAMPLE = "a last batch of one sample is left out: batch norm needs two"


class Singles:
    """Tells which training batches are to be left out.

    Args:
        network: that is trained.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = batch_norms(network)
        self._largest, self._told = 0, False

    @property
    def possible(self) -> bool:
        """Whether the size of a batch matters at all."""
        return bool(self._norms)

    def skips(self, size: int) -> bool:
        """Tell whether a batch is to be left out: one sample, where others had more.

        Args:
            size: number of samples in it.
        """
        alone = size == 1 < self._largest and any(norm.training for norm in self._norms)
        self._largest = max(size, self._largest)
        if alone and not self._told:
            self._told = True
            warnings.warn(ONE_SAMPLE, stacklevel=2)
        return alone
