"""Who trains: alone, repeated, over several processes, or as a group; and how many at once."""
