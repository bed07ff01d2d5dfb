"""What recipe a trial gets: drawn by a sampler, of a given shape, or given whole."""
