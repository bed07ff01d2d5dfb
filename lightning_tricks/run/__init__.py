"""One call or one command.

Its files, in the order of imports:

- `archives.py` MLflow or the folder
- `optimize.py`
- `checking.py` `--check`
- `program.py` a script after its arguments are read
- `loading.py` how slow libraries are imported
- `values.py` flag values
- `arguments.py` `main`
"""
