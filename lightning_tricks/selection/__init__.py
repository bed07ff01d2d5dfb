"""Which recipe is best, and by how much: what is concluded from scores over several seeds."""
