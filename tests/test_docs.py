"""Run the code in the documents, build the site and check its pages."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import formulas
import pytest
import torch
import trick_pages
from browser import chromium, needs_chromium
from PIL import Image
from pydantic import Field
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks
from lightning_tricks import Float, InputError, Space, Task, Tricks
from lightning_tricks.run.arguments import _parser
from lightning_tricks.space.trick import stages
from lightning_tricks.task.checks import check
from lightning_tricks.tricks.clipping import ClippingTrick
from lightning_tricks.tricks.papers import PAPERS, papers_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DOCUMENTS = ROOT / "docs"
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted(DOCUMENTS.glob("*.md")))}
"""The README and the pages written by hand."""
TEXTS = {**PAGES, "studies": ROOT / "studies" / "README.md"}
KINDS = [(stage, kind) for stage, options in stages(Tricks).items() for kind in options]
NO_SCRIPTS = {
    "--artifact-dir",
    "--host",
    "--allowed-hosts",
    "--backend-store-uri",
    "--head",
    "--address",
    "--port",
    "--generate",
}
"""Flags of MLflow and Ray, not of scripts."""


def blocks(path, language):
    """Return a page's code blocks in a language; empty stands for commands."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.M)
    return [text for of, text in fenced if of == language]


def run_blocks(path, shown):
    """Run the Python of a page, block by block; return the tasks that it makes, by name.

    MLflow caches stores by name, but each test has its own folder, so the name is the absolute path.
    """
    tasks = {}
    here = f"sqlite:///{Path('mlflow.db').absolute()}"
    for block in blocks(path, "python"):
        exec(compile(block.replace("sqlite:///mlflow.db", here), path.name, "exec"), shown)
        tasks |= {value.name: value for value in shown.values() if isinstance(value, Task)}
    return tasks


@pytest.fixture
def pictures():
    for kind in ("cat", "dog"):
        folder = Path("pictures/train", kind)
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = torch.randint(256, (40, 40, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.usefixtures("pictures")
def test_bring_your_own():
    shown: dict = {"__name__": "document"}
    tasks = run_blocks(DOCUMENTS / "bring_your_own.md", shown)
    assert set(tasks) == {"mine", "prices", "numbers", "tuned", "module"}
    for task in tasks.values():
        check(task, Space(task.tricks))
    assert next(iter(shown["loader"]))[0].shape == (8, 3, 32, 32)
    assert type(shown["plain"]).__name__ == "Mine"
    assert shown["best"].normalization.kind == "batch"


WITH_CODE = [name for name, path in PAGES.items() if blocks(path, "python")]
OF_THEIR_OWN = {"bring_your_own.md", "cookbook.md", "mlflow.md"}


@pytest.mark.usefixtures("with_store")
@pytest.mark.parametrize("name", [name for name in WITH_CODE if name not in OF_THEIR_OWN])
def test_the_code_of_a_page_runs(name):
    run_blocks(PAGES[name], {"__name__": "document"})


@pytest.mark.usefixtures("with_store")
def test_the_champion_of_the_readmes_study_is_loaded():
    shown: dict = {"__name__": "document"}
    exec(compile(blocks(PAGES["README.md"], "python")[0], "README.md", "exec"), shown)
    run_blocks(PAGES["mlflow.md"], shown)
    assert shown["outputs"].shape == (5, 2)


@pytest.mark.parametrize("name", [name for name, path in TEXTS.items() if blocks(path, "yaml")])
def test_the_spaces_of_a_page_are_read(name, tmp_path):
    for block in blocks(TEXTS[name], "yaml"):
        (tmp_path / "narrow.yaml").write_text(block)
        assert Space.from_yaml(Tricks, tmp_path / "narrow.yaml").searched()


def test_the_file_of_the_cookbook_has_the_values_of_the_baseline(tmp_path):
    (block,) = blocks(PAGES["cookbook.md"], "yaml")
    (tmp_path / "narrow.yaml").write_text(block)
    assert Space.from_yaml(Tricks, tmp_path / "narrow.yaml").nearest(Tricks()) == Tricks()


SMALL = {
    r"\bepochs=\d+": "epochs=1",
    r"n_trials=\d+": "n_trials=3",
    r"finalists=\d+": "finalists=1, seeds=3",
    r", verdict_budget=\d+": "",
    "pretrained=True": "pretrained=False",
}
"""Numbers of the cookbook's recipes, as patterns, and smaller ones for a test without a network."""


@pytest.mark.usefixtures("with_store")
def test_the_recipes_of_the_cookbook_run(tmp_path_factory):
    page = PAGES["cookbook.md"].read_text()
    for pattern, small in SMALL.items():
        page = re.sub(pattern, small, page)
    small = tmp_path_factory.mktemp("pages") / "small.md"
    small.write_text(page)
    rows = [f"{n}.5,{'red' if n % 3 else 'blue'},{'yes' if n % 2 else 'no'}" for n in range(60)]
    rows += [",blue,yes", "7.5,,no", "8.5,red,"]  # missing values
    Path("table.csv").write_text("\n".join(["size,color,label", *rows]))
    Path("new.csv").write_text("size,color\n3.5,red\n,\n2.5,green\n")
    rows = [f"{n}.5,{'red' if n % 3 else 'blue'},{1000 * n}" for n in range(60)]
    Path("prices.csv").write_text("\n".join(["size,color,price", *rows]))
    images = TensorDataset(torch.rand(8, 3, 32, 32), torch.arange(8) % 10)
    loader = DataLoader(images, batch_size=4)
    tasks = run_blocks(small, {"train": loader, "validation": loader})
    assert set(tasks) == {"table", "prices", "smoothing", "smoothing-of-mine", "pets"}


def test_a_recipe_of_the_cookbook_has_twelve_lines_at_most():
    for language in ("", "python", "py", "yaml"):
        for block in blocks(PAGES["cookbook.md"], language):
            assert len([line for line in block.splitlines() if line.strip()]) <= 12


QUOTED = re.findall(r"^\*\*`([^`]+)`\*\*", (DOCUMENTS / "faq.md").read_text(), re.M)


@pytest.mark.parametrize("words", QUOTED)
def test_the_program_prints_the_words_that_the_faq_explains(words):
    trees = [ast.parse(path.read_text()) for path in (ROOT / "lightning_tricks").rglob("*.py")]
    texts = [n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert any(words in text for text in texts if isinstance(text, str))


REFUSED = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", PAGES["space.md"].read_text(), re.M)


@pytest.mark.parametrize(("written", "error"), REFUSED)
def test_what_the_page_says_is_refused_is_refused_in_those_words(written, error, tmp_path):
    (tmp_path / "narrow.yaml").write_text(written)
    with pytest.raises(InputError, match=re.escape(error)):
        Space.from_yaml(Tricks, tmp_path / "narrow.yaml")


def commands(path):
    """Return the commands of a page that run a script of the repository."""
    lines = [
        line.partition("  #")[0].partition(" && ") for b in blocks(path, "") for line in b.split("\n")
    ]
    parts = [part.strip() for before, _, after in lines for part in (before, after)]
    return [
        part[part.index("python ") :]
        for part in parts
        if re.search(r"python (studies|benchmarks)/", part)
    ]


def own_flags(script):
    """Return the flags that only a study's script has."""
    module = importlib.import_module(script.stem)
    return getattr(module, "FLAGS", {})


@pytest.mark.parametrize("name", [name for name, path in TEXTS.items() if commands(path)])
def test_the_commands_of_a_page_are_understood(name):
    for command in commands(TEXTS[name]):
        _, script, *arguments = shlex.split(command)
        assert (ROOT / script).exists(), script
        if (
            script.startswith("studies/")
            and "main(" in (ROOT / script).read_text().split("__name__")[-1]
        ):
            parser = _parser(1, 1)
            for flag, meaning in own_flags(ROOT / script).items():
                parser.add_argument(flag, help=meaning)
            if arguments != ["--help"]:
                parser.read(arguments)


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_flag_that_a_page_names_is_there(name):
    text = TEXTS[name].read_text()
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks(TEXTS[name], "")])
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code))
    scripts = [*(ROOT / "studies").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    theirs = {flag for path in scripts for flag in re.findall(r'"(--[a-z-]+)"', path.read_text())}
    build = {"--keep-going"}
    assert named <= set(_parser(1, 1)._option_string_actions) | theirs | NO_SCRIPTS | build


@pytest.mark.parametrize(("stage", "kind"), KINDS)
def test_each_citation_of_a_trick_has_its_paper(stage, kind):
    for paper in papers_of(stages(Tricks)[stage][kind]):
        surname = paper.authors.partition(" and ")[0].split()[-1]
        assert paper.key.startswith(surname)
        assert paper.url.startswith("https://")
        assert str(paper.year) in paper.bibtex()
        assert paper.title in paper.text()
        assert paper.bibtex().count("{") == paper.bibtex().count("}")


def test_each_paper_is_cited():
    cited = {paper.key for stage, kind in KINDS for paper in papers_of(stages(Tricks)[stage][kind])}
    assert cited == set(PAPERS)
    names = [paper.bibtex().split("\n")[0] for paper in PAPERS.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("stage", "kind"), KINDS)
def test_each_trick_says_when_it_helps(stage, kind):
    trick = stages(Tricks)[stage][kind]
    assert trick.neutral or trick_pages.HELPS in " ".join(trick.__doc__.split())


def test_a_formula_stands_as_it_is_written():
    step, rest = formulas.split("w ← w − η·m̂/(√v̂ + ε) with averages m̂. It is quick.")
    assert (step, rest) == ("w ← w − η·m̂/(√v̂ + ε) with averages m̂.", "It is quick.")
    assert formulas.split("Layers are drawn again.") == ("", "Layers are drawn again.")
    assert formulas.inline("`a·b` stays < 1") == "<code>a·b</code> stays &lt; 1"


@pytest.fixture(scope="module")
def known():
    return trick_pages.Known.read(ROOT)


@pytest.fixture(scope="module")
def trick_texts(known):
    return trick_pages.all_pages(known)


def test_the_examples_of_the_tricks_pages_run(trick_texts, tmp_path):
    for stage, kind in KINDS:
        page = tmp_path / "page.md"
        page.write_text(trick_texts[f"{stage}/{kind}.md"])
        shown: dict = {}
        run_blocks(page, shown)
        assert getattr(shown["tricks"], stage).kind == kind
        (pinned,) = blocks(page, "yaml")
        (tmp_path / "narrow.yaml").write_text(pinned)
        space = Space.from_yaml(Tricks, tmp_path / "narrow.yaml")
        assert list(space.domains[stage].extremes()) == [kind]


def test_a_tricks_page_follows_from_its_class(known):
    class Sign(ClippingTrick):
        """g ← θ·sign(g), coordinate by coordinate (Kingma and Ba, 2015).

        When it helps: here.
        """

        kind: Literal["sign"] = "sign"
        theta: Annotated[float, Float(1e-4, 0.25, log=True)] = Field(0.125, gt=0, le=7)

        def clip(self, module, gradients, norm):
            """Cut all to θ."""
            raise NotImplementedError

    page = trick_pages.trick_page("clipping", "sign", Sign, known)
    assert "| `theta` | `float` | 0.125 | > 0, ≤ 7 | 0.0001 to 0.25, on a log scale |" in page
    assert "`configure_gradient_clipping` calls `clip`: “Cut all to θ.”" in page
    assert PAPERS["Kingma and Ba, 2015"].url in page
    assert "clipping: {kind: sign, theta: 0.125}" in page
    assert "<p>Here.</p>" in page


def test_pages_tell_worth_tests_and_searches(trick_texts):
    page = trick_texts["optimizer/adam.md"]
    assert "- in 5 epochs **+12.7 ± 5.4** points, to 80.98%" in page
    assert "- in 20 epochs **+3.1 ± 2.9** points" in page
    assert "adam with decoupled decay equals adamw" in page
    assert "every pair of variants takes a finite moving step" in page
    assert "Tricks.fine_tuning()" in page
    assert "No search proposes it unasked" in trick_texts["sharpness/sam.md"]
    assert "step equals torch" in trick_texts["schedule/step.md"]
    assert "cosine" not in trick_texts["schedule/step.md"].partition("## How it is tested")[2]


def test_the_api_page_has_every_public_name():
    named = re.findall(r"^\.\. auto\w+:: (\w+)$", (DOCUMENTS / "api.md").read_text(), re.M)
    assert sorted(named) == sorted(lightning_tricks.__all__)


def test_pictures_are_small():
    for path in (DOCUMENTS / "pictures").iterdir():
        assert path.stat().st_size <= 150_000, path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site from a copy, because the tricks' pages are written next to the others."""
    folder = tmp_path_factory.mktemp("site")
    made = shutil.ignore_patterns("tricks", "_build", "__pycache__")
    shutil.copytree(DOCUMENTS, folder / "docs", ignore=made)
    for name in ("lightning_tricks", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    flags = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags, "docs", "html"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.mark.xdist_group("site")
def test_the_site_has_a_page_for_each_trick_and_asks_nobody(site):
    for stage, kind in KINDS:
        assert (site / "tricks" / stage / f"{kind}.html").exists()
    loads = r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//|<link[^>]+rel=\"stylesheet\"[^>]+https?://"
    for path in site.rglob("*.html"):
        assert not re.search(loads, path.read_text()), path


@needs_chromium
@pytest.mark.xdist_group("site")
def test_pages_fit_a_phone_and_a_screen_and_ask_nobody(site):
    asked, said = [], []

    def refuse(route):
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    with chromium() as browser:
        for width in (390, 1400):
            page = browser.new_page()
            page.set_viewport_size({"width": width, "height": 900})
            page.route("**/*", refuse)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            for name in ("index", "tricks/optimizer/adam", "api"):
                page.goto((site / f"{name}.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            page.goto((site / "tricks/optimizer/adam.html").as_uri())
            assert "←" in page.locator(".formula").first.inner_text()
        page.goto((site / "search.html").as_uri() + "?q=nesterov")
        page.wait_for_selector("#search-results li a")
    assert asked == []
    assert said == []
