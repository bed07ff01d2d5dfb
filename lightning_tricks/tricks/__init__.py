"""Every training trick: one file per stage, one class per trick."""
