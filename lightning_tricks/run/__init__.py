"""One call or one command: what is given is checked, and a study runs."""
