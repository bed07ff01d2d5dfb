"""YAML files that do not say what their writer thinks."""

from pathlib import Path

import pytest

from lightning_tricks import InputError, Space, Tricks

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NESTED = "pin: " + "[" * 40_000

WRONG = {
    "empty": ("", "holds nothing"),
    "comments": ("# pin: {optimizer: adam}\n", "holds nothing"),
    "no section": ("{}", r"must hold the sections .* \(got {}\)"),
    "section twice": ("pin: {clipping: norm}\npin: {}\n", "pin: is given twice, in lines 1 and 2"),
    "key twice": (
        "pin:\n  optimizer: adam\n  clipping: norm\n  optimizer: sgd\n",
        r"pin.optimizer: is given twice, in lines 2 and 4 \(got 'adam' and 'sgd'\)",
    ),
    "inner key twice": (
        "pin: {optimizer: {kind: adam, lr: 1, lr: 2}}",
        "pin.optimizer.lr: is given twice",
    ),
    "in a list": ("narrow: [{low: 1, low: 2}]", r"narrow.low: is given twice, .*\(got '1' and '2'\)"),
    "truth": ("pin: {optimizer.adam.lr: true}", r"optimizer.adam.lr: .*number.*True"),
    "inner truth": ("pin: {optimizer: {kind: adam, lr: yes}}", r"optimizer.adam.lr: .*number.*True"),
    "true option": ("narrow: {optimizer.adam.lr: [true, 0.1]}", r"optimizer.adam.lr: .*number.*True"),
    "true bound": ("narrow: {optimizer.adam.lr: {low: true, high: 2}}", r"adam.lr: .* \(got True\)"),
    "bomb": (BOMB, r"aliases are not allowed; write out what \*a stands for"),
    "merged bomb": (BOMB + "pin: {<<: [*a, *b]}\n", "aliases are not allowed"),
    "nested": (NESTED, "must not be nested 21 deep"),
    "long": ("pin: {}\n" + "#" * 100_000, "more than 50000 bytes"),
    "digits": (f"pin: 0x{'f' * 9000}", "thousands of digits"),
    "option of digits": (f"narrow: {{optimizer: 0x{'f' * 9000}}}", "thousands of digits"),
    "decimal digits": (f"pin: {'9' * 9000}", "malformed YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_means_something_else_is_one_clear_line(case, tmp_path):
    content, message = WRONG[case]
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Space.from_yaml(Tricks, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_without_end_is_one_clear_line():
    with pytest.raises(InputError, match="'/dev/zero': cannot be read"):
        Space.from_yaml(Tricks, Path("/dev/zero"))


def test_a_section_may_be_empty_while_its_lines_are_commented_out(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("pin:\n#  optimizer: adam\nnarrow: {clipping: norm}\n")
    assert Space.from_yaml(Tricks, path).describe() == Space(Tricks).pin({"clipping": "norm"}).describe()
