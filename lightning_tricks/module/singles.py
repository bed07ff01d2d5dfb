"""Training batches of one sample, which batch norm cannot use."""

import warnings

from torch import nn

from lightning_tricks.surgery.batch_norm import batch_norms

ONE_SAMPLE = "a last batch of one sample is left out: batch norm needs two"


class Singles:
    """Tells which training batches to leave out.

    Args:
        network: the network that is trained.
    """

    def __init__(self, network: nn.Module) -> None:
        self._norms = batch_norms(network)
        self._largest, self._told = 0, False

    @property
    def possible(self) -> bool:
        """Whether the network has batch norms, so that the batch size matters."""
        return bool(self._norms)

    def skips(self, size: int) -> bool:
        """Tell whether to leave out a batch: it has one sample, and earlier ones had more.

        Args:
            size: number of samples in the batch.
        """
        alone = size == 1 < self._largest and any(norm.training for norm in self._norms)
        self._largest = max(size, self._largest)
        if alone and not self._told:
            self._told = True
            warnings.warn(ONE_SAMPLE, stacklevel=2)
        return alone
