"""Print the lowest versions that `pyproject.toml` allows, as a constraints file for pip."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = project["dependencies"]
found = [re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)$", requirement) for requirement in wanted]
sys.stdout.writelines(f"{match[1]}=={match[2]}\n" for match in found if match)
