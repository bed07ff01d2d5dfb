"""Training batches of one sample, which batch norm cannot use."""

import warnings

from torch import nn

from lightning_tricks.surgery.attach import positions_of_norms
from lightning_tricks.surgery.batch_norm import batch_norms
from lightning_tricks.surgery.watch import anatomy_of

ONE_SAMPLE = "batches of one sample are left out: batch norm needs two"


class Singles:
    """Tells which training batches to leave out.

    Args:
        network: the network that is trained.
    """

    def __init__(self, network: nn.Module) -> None:
        paths = {id(module): path for path, module in network.named_modules()}
        known = positions_of_norms(anatomy_of(network))
        norms = batch_norms(network)
        # A map of several positions has enough values in one sample.
        self._norms = [norm for norm in norms if known.get(paths[id(norm)], 0) < 2]
        self._largest, self._told = 0, False

    @property
    def possible(self) -> bool:
        """Whether the network has batch norms that cannot use one sample, so that batch size matters."""
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
