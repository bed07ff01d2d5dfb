"""The type is the search space.

Its files, in the order of imports:

- `domains.py` `Float`, `Int`, `Choice`, `OneMinus`
- `documents.py` strict YAML
- `trick.py` the base of all recipes, and their errors
- `paths.py` walks fields
- `space.py` draws, pins, narrows
"""
