"""How a trial gets its recipe: drawn by a sampler, partly fixed, or given."""
