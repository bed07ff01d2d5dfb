"""Formulas in plain text become MathML: `w ← w − η·m̂/(√v̂ + ε)`, without JavaScript.

A formula is what this grammar reads and what has an operator, a relation or a Greek letter in it;
words are none, but for those in `NAMES`. What it cannot read stays text.
"""

import re
from html import escape
from typing import NamedTuple

NAMES = frozenset(
    {
        "Beta",
        "bound",
        "clamp",
        "cos",
        "every",
        "first",
        "horizon",
        "loss",
        "Loss",
        "mask",
        "max",
        "mean",
        "min",
        "share",
        "sign",
        "std",
    }
)
"""Words that stand for a number or a function in a formula."""
RELATIONS = "←=~<>≤≥"
GREEK = "αβγδεηθλμρσ"
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᵀᵗᵏⁿ", "0123456789−Ttkn", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_HAT = "\u0302"


class Formula(NamedTuple):
    """A formula that was found in a text."""

    start: int
    end: int
    statements: list[str]
    """As MathML, those that semicolons part."""


class _NoFormula(Exception):
    """What comes next is no formula."""


class _Reader:
    """Read one formula from a place of a text, as far as it goes."""

    def __init__(self, text: str, at: int, display: bool) -> None:
        self.text, self.at, self.weight, self.related, self.display = text, at, 0, False, display

    def statement(self) -> str:
        """Read sums, and relations between them."""
        parts = [self.sum()]
        while True:
            held = self.at
            sign = self.operator(RELATIONS)
            if not sign:
                break
            try:
                parts += [_mo(sign), self.sum()]
            except _NoFormula:
                self.at = held
                break
            self.weight, self.related = self.weight + 1, True
        return "".join(parts)

    def sum(self) -> str:
        """Read products, and what is added up of them."""
        parts = []
        if self.peek() == "±":
            self.at, self.weight, parts = self.at + 1, self.weight + 1, [_mo("±", "prefix")]
        parts.append(self.product())
        while True:
            held = self.at
            sign = self.operator("+−")
            if not sign:
                return "".join(parts)
            try:
                parts += [_mo(sign), self.product()]
            except _NoFormula:
                self.at = held
                return "".join(parts)
            self.weight += 1

    def product(self) -> str:
        """Read factors; a quotient is of the factors on both sides of its stroke."""
        parts = [self.factor()]
        while self.at < len(self.text) and self.text[self.at] in "·/×":
            held, sign = self.at, self.text[self.at]
            self.at += 1
            try:
                factor = self.factor()
            except _NoFormula:
                self.at = held
                break
            if sign == "/" and self.display:
                parts[-1] = f"<mfrac>{_row(_bare(parts[-1]))}{_row(_bare(factor))}</mfrac>"
            else:
                parts += [_mo(sign), factor]
            self.weight += 1
        return _row("".join(parts)) if len(parts) > 1 else parts[0]

    def factor(self) -> str:
        """Read an atom with what stands before, above and below it."""
        sign = self.peek()
        if sign in "√∇−" and sign:
            self.at += 1
            self.weight += sign != "−"
            inner = self.factor()
            if sign == "√":
                return f"<msqrt>{_bare(inner)}</msqrt>"
            return _row(f"{'<mi>∇</mi>' if sign == '∇' else _mo(sign, 'prefix')}{inner}")
        return self.scripts(self.atom())

    def atom(self) -> str:
        """Read a number, a symbol, a function of something, or what is in brackets."""
        sign = self.peek()
        if sign in "([":
            return self.brackets(sign, {"(": ")", "[": "]"}[sign])
        if sign == "‖":
            self.at += 1
            inner = self.statement()
            self.expect("‖")
            self.weight += 1
            return _row(f"{_fence('‖', 'prefix')}{inner}{_fence('‖')}")
        if number := re.compile(r"\d+(?:\.\d+)?").match(self.text, self.at):
            self.at = number.end()
            return f"<mn>{number[0]}</mn>"
        return self.symbol()

    def symbol(self) -> str:
        """Read a letter, a name, or letters that are multiplied with each other."""
        word = re.compile(r"[A-Za-zα-ω]+\u0302?").match(self.text, self.at)
        if not word:
            raise _NoFormula
        name, after = word[0], word.end()
        if len(name.removesuffix(_HAT)) > 1 and name not in NAMES:
            letters = name if after < len(self.text) and self.text[after] == "ᵀ" else ""
            if name[0] == "π":  # times what follows
                letters = name
            if not letters:
                raise _NoFormula
            self.at = after - 1
            return "".join(f"<mi>{letter}</mi>" for letter in letters[:-1]) + self.last(letters[-1])
        self.at = after
        made = _symbol(name)
        if name == "cos" and self.text[after : after + 1] == " ":
            self.at += 1
            return f"<mrow>{made}<mo>&#x2061;</mo>{self.product()}</mrow>"
        made = self.subscript(made)
        if self.peek() == "(":  # a function of something
            return f"<mrow>{made}<mo>&#x2061;</mo>{self.brackets('(', ')')}</mrow>"
        self.weight += any(letter in GREEK for letter in name) or _HAT in name
        return made

    def last(self, letter: str) -> str:
        """Read the last of several letters, which alone has scripts."""
        self.at += 1
        return self.scripts(f"<mi>{letter}</mi>")

    def subscript(self, made: str) -> str:
        """Read what stands below, as in `n_in` and `β₁`."""
        if name := re.compile(r"_([A-Za-z]+)").match(self.text, self.at):
            self.at, self.weight = name.end(), self.weight + 1
            return f"<msub>{made}{_symbol(name[1])}</msub>"
        if digits := re.compile(f"[{''.join(_LOWERED)}]+").match(self.text, self.at):
            self.at, self.weight = digits.end(), self.weight + 1
            return f"<msub>{made}<mn>{''.join(_LOWERED[d] for d in digits[0])}</mn></msub>"
        return made

    def scripts(self, made: str) -> str:
        """Read powers, primes and the like."""
        made = self.subscript(made)
        if signs := re.compile(f"[{''.join(_RAISED)}]+").match(self.text, self.at):
            self.at, self.weight = signs.end(), self.weight + 1
            power = "".join(_RAISED[sign] for sign in signs[0])
            tag = "mi" if power.isalpha() else "mn"
            return f"<msup>{made}<{tag}>{power}</{tag}></msup>"
        if self.peek() == "′":
            self.at, self.weight = self.at + 1, self.weight + 1
            return _row(f"{made}<mo>′</mo>")
        if self.peek() == "^":
            self.at, self.weight = self.at + 1, self.weight + 1
            return f"<msup>{made}{_row(_bare(self.factor()))}</msup>"
        return made

    def brackets(self, opening: str, closing: str) -> str:
        """Read statements between brackets, with commas between them."""
        self.expect(opening)
        parts = [self.statement()]
        while self.text.startswith(", ", self.at):
            self.at += 2
            parts += ["<mo>,</mo>", self.statement()]
        self.expect(closing)
        return _row(f"{_fence(opening)}{''.join(parts)}{_fence(closing)}")

    def operator(self, signs: str) -> str:
        """Take a sign between two spaces, if it is one of these."""
        found = re.compile(rf" ([{signs}]) ").match(self.text, self.at)
        if found:
            self.at = found.end()
        return found[1] if found else ""

    def peek(self) -> str:
        """Return the next character; empty at the end."""
        return self.text[self.at : self.at + 1]

    def expect(self, sign: str) -> None:
        """Take a character, which must be there."""
        if self.peek() != sign:
            raise _NoFormula
        self.at += 1


def formula_at(text: str, at: int, display: bool = False) -> Formula | None:
    """Return the formula that begins at a place of a text, if one does.

    Args:
        text: with or without formulas.
        at: the place.
        display: whether it is to stand in lines of its own, where a quotient may be a fraction.
    """
    if at and (text[at - 1].isalnum() or text[at - 1] in "-_`’'."):
        return None
    reader = _Reader(text, at, display)
    try:
        parts = [reader.statement()]
    except _NoFormula:
        return None
    while reader.related and text.startswith("; ", reader.at):
        further = _Reader(text, reader.at + 2, display)
        try:
            made = further.statement()
        except _NoFormula:
            break
        if not further.related or _runs_on(text, further.at):
            break
        parts.append(made)
        reader.at = further.at
    alone = reader.at - at == 1 and text[at] in "bcdefghijklmnopqrstuvwxyzKLNSUVW"
    if _runs_on(text, reader.at) or not (reader.weight or alone):
        return None
    return Formula(at, reader.at, parts)


def inline(text: str) -> str:
    """Return a text as HTML, its formulas as MathML and its code spans as code."""
    made, at = [], 0
    while at < len(text):
        if text[at] == "`" and (end := text.find("`", at + 1)) > 0:
            made.append(f"<code>{escape(text[at + 1 : end])}</code>")
            at = end + 1
        elif found := formula_at(text, at):
            made.append("; ".join(f"<math>{statement}</math>" for statement in found.statements))
            at = found.end
        else:
            made.append(escape(text[at]))
            at += 1
    return "".join(made)


def split(sentence: str) -> tuple[str, str]:
    """Split off the formula that a sentence begins with; return it as MathML, and the rest as text."""
    found = formula_at(sentence, 0, display=True)
    if not found or found.end < 3:
        return "", sentence
    lines = [f'<math display="block">{statement}</math>' for statement in found.statements]
    return "".join(lines), sentence[found.end :].lstrip(",:;. ")


def _runs_on(text: str, at: int) -> bool:
    """Tell whether a word goes on where a formula ends."""
    return bool(re.compile(r"[\w\u0302`’']|-\w|[⁻⁰¹²³]").match(text, at))


def _symbol(name: str) -> str:
    if name.endswith(_HAT):
        return f'<mover accent="true"><mi>{name[:-1]}</mi><mo>^</mo></mover>'
    return f"<mi>{name}</mi>"


def _mo(sign: str, form: str = "infix") -> str:
    if sign == "/":
        return '<mo lspace="0" rspace="0">/</mo>'
    return f'<mo form="{form}">{escape(sign.replace("~", "∼"))}</mo>'


def _fence(sign: str, form: str = "") -> str:
    return _mo(sign, form or ("prefix" if sign in "([" else "postfix"))


def _row(inner: str) -> str:
    return f"<mrow>{inner}</mrow>"


def _bare(made: str) -> str:
    """Take the parentheses off, which a stroke or a root makes needless."""
    inner = r"((?:(?!>[()]<).)*)"
    around = re.fullmatch(f"<mrow>{re.escape(_fence('('))}{inner}{re.escape(_fence(')'))}</mrow>", made)
    return around[1] if around else made
