"""Which recipe is best, and by how much: conclusions from scores over several seeds."""
