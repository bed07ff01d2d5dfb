"""How trials are trained: alone, repeated, over several processes, or as a group."""
