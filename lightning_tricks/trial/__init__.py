"""One trial: a recipe in, a result out."""
