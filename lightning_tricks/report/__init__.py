"""One file to share.

Its files, in the order of imports:

- `drawing.py` SVG and axes
- `figures.py`
- `importance.py` which stages made a difference
- `blocks.py` sentences, tables, figures
- `answer.py` the first screen
- `facts.py` gradients, cost, versions
- `scores.py` the champion's score
- `worth.py` each trick's worth
- `columns.py` tables that fit the terminal
- `summary.py` the end of a study in text
- `page.py` HTML and Markdown
- `file.py` replaces only reports
"""
