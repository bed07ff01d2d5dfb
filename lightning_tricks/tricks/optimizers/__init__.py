"""Every optimizer: one file each, with notes on choosing its hyperparameters."""
