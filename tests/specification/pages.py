"""The executable specification: what a standard asks, as data, to a page with the code and the tests beside it.

`python -m tests.specification.pages` writes docs/understand/specification/*.md from the *.toml files beside them.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.processes import ROOT

__all__ = ["FOLDER", "Rule", "Standard", "keywords", "page", "standards", "steps", "symbols", "unmet"]

FOLDER: Final = ROOT / "docs" / "understand" / "specification"
WORDS: Final = "MUST|SHOULD"
ROLES: Final = {"server": "the server", "client": "the client", "both": "both sides"}


class Rule(NamedTuple):
    """A sentence of a standard, or an example, and what there is for it.

    A rule that is not for us has the reason in `aside`, one that we do not follow in `differs`; all others have `code`
    (file:symbol) and `tests` (file::name, in tests/), and may have `autobahn` (cases or their prefixes). `step` names
    the steps of the standard's algorithms that it quotes, each as "name number".
    """

    section: str
    role: str = ""
    text: str = ""
    example: str = ""
    code: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    autobahn: tuple[str, ...] = ()
    aside: str = ""
    differs: str = ""
    step: tuple[str, ...] = ()


class Standard(NamedTuple):
    """A data file.

    `titles` are those of its sections; `keywords` counts MUST and SHOULD, with and without NOT, for each section of the
    standard's text, or other `words` than these; `steps` are its algorithms, and how many steps each has. Where
    they were not counted in the text itself, `counted` is false.
    """

    file: str
    title: str
    name: str
    url: str
    scope: str
    titles: dict[str, str]
    words: str
    keywords: dict[str, int]
    steps: dict[str, int]
    counted: bool
    rules: list[Rule]


def standards() -> list[Standard]:
    """Read all data files."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        rules = [Rule(**{key: _tuple(value) for key, value in rule.items()}) for rule in data.pop("rule")]
        found.append(Standard(path.stem, rules=rules, **{"words": WORDS, "steps": {}, "counted": True, **data}))
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def keywords(rules: list[Rule], words: str = WORDS) -> dict[str, int]:
    """Count the keywords in the sentences of each section."""
    counted: Counter[str] = Counter()
    for rule in rules:
        counted[rule.section] += len(re.findall(rf"\b(?:{words})\b", rule.text))
    return {section: count for section, count in counted.items() if count}


def steps(rules: list[Rule]) -> dict[str, int]:
    """Count the steps of each algorithm that stand in the rules; raises ValueError where one is left out or twice."""
    found: dict[str, list[int]] = {}
    for name, _, number in (step.rpartition(" ") for rule in rules for step in rule.step):
        found.setdefault(name, []).append(int(number))
    for name, numbers in found.items():
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"the steps of {name!r} are {numbers}, needed is each once, in their order")
    return {name: len(numbers) for name, numbers in found.items()}


@cache
def symbols(path: Path) -> frozenset[str]:
    """Return the functions and classes of a file, those of a class as Class.name."""
    return frozenset(_names(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> list[str]:
    names = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                names += _names(node.body, f"{prefix}{node.name}.")
    return names


def unmet(rule: Rule) -> list[str]:
    """Return what is missing of a rule: nothing where its code and its tests are there, or the reason why not."""
    if rule.aside or rule.differs:
        return ["a reason, and code or tests"] if rule.code or rule.tests else []
    missing = [f"a role of {', '.join(ROLES)}"] * (rule.role not in ROLES)
    missing += ["code"] * (not rule.code) + ["a test"] * (not rule.tests)
    for entry in rule.code:
        file, _, symbol = entry.partition(":")
        if not (ROOT / file).is_file() or symbol not in symbols(ROOT / file):
            missing.append(entry)
    for entry in rule.tests:
        file, _, name = entry.partition("::")
        path = ROOT / "tests" / file
        if not name.startswith("test_") or not path.is_file() or name not in symbols(path):
            missing.append(entry)
    return missing


def page(standard: Standard) -> str:
    """Return the page of a standard, in Markdown."""
    lines = [
        f"<!-- Made from {standard.file}.toml by `make docs`: change that file, not this one. -->",
        f"# {standard.title}",
        "",
        standard.scope.strip(),
        "",
        _summary(standard).strip(),
    ]
    for section, rules in groupby(standard.rules, key=lambda rule: rule.section):
        url = standard.url.format(section=section)
        if section[0].isalpha():
            url = url.replace("#section-", "#appendix-")
        lines += ["", f"## {section} {standard.titles[section]}", "", f"[{standard.name}, section {section}]({url})"]
        for rule in rules:
            lines += ["", *_entry(rule, standard.words)]
    return "\n".join(lines) + "\n"


def _summary(standard: Standard) -> str:
    rules = standard.rules
    aside, differs = sum(bool(rule.aside) for rule in rules), sum(bool(rule.differs) for rule in rules)
    cases = {case for rule in rules for case in rule.autobahn}
    tests = {test for rule in rules for test in rule.tests}
    autobahn = f" and Autobahn ({len(cases)} cases or groups of cases)" if cases else ""
    lines = f"""\
{len(rules)} entries: {len(rules) - aside - differs} are held by code, {len(tests)} tests{autobahn},
{aside} are not for us, {differs} we do not follow, with the reason.
"""
    words = "MUST, MUST NOT, SHOULD and SHOULD NOT" if standard.words == WORDS else "must and should"
    if standard.words == "MUST":
        lines += (
            f"\nThe sentences below have the word MUST {sum(standard.keywords.values())} times; others are left out.\n"
        )
    elif not standard.counted:
        lines += f"""
The sentences below have the words {words} {sum(standard.keywords.values())} times.
It was not counted in the text of the standard whether that is all of them.
"""
    else:
        lines += f"""
The text of these sections has the words {words} {sum(standard.keywords.values())} times,
and each of them stands in a sentence below.
"""
    if standard.steps:
        lines += f"So does each of the {sum(standard.steps.values())} steps of {len(standard.steps)} algorithms.\n"
    return lines


def _entry(rule: Rule, words: str) -> list[str]:
    quoted = re.sub(rf"\b((?:{words})(?: NOT)?)\b", r"**\1**", re.sub(r"[_|*]", r"\\\g<0>", rule.text))
    lines = [f"> {quoted}" if quoted else f"> Example: {rule.example}", ""]
    if rule.step:
        name = rule.step[0].rpartition(" ")[0]
        numbers = " and ".join(step.rpartition(" ")[2] for step in rule.step)
        lines = [f"{name[0].upper()}{name[1:]}, {'steps' if len(rule.step) > 1 else 'step'} {numbers}:", "", *lines]
    if rule.aside or rule.differs:
        return [*lines, f"Not for us: {rule.aside}" if rule.aside else f"**We differ.** {rule.differs}"]
    code = ", ".join(f"[`{entry.rpartition(':')[2]}`](../../../{entry.partition(':')[0]})" for entry in rule.code)
    held = ((entry.partition("::")[2], entry.partition("::")[0]) for entry in rule.tests)
    tests = ", ".join(f"[`{name}`](../../../tests/{file})" for name, file in held)
    lines += [f"- For {ROLES[rule.role]}, in {code}", f"- Held by {tests}"]
    return lines + [f"- Autobahn {', '.join(rule.autobahn)}"] * bool(rule.autobahn)


def main() -> None:
    """Write the pages."""
    for standard in standards():
        (FOLDER / f"{standard.file}.md").write_text(page(standard), encoding="utf-8")


if __name__ == "__main__":
    main()
