"""Every training trick: a file for each stage, a class for each trick."""
