"""One trial: a record in, a result out."""
