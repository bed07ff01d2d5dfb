"""Every optimizer: a file for each, with notes on choosing its numbers."""
