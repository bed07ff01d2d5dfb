"""Find, replace and change layers of an unmodified `torch.nn.Module`."""
