"""The README's list of files: one line per module, the first line of its docstring. Rebuild: python tests/test_readme.py."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tuneoff"
BEGIN, END = "<details><summary>One line per file</summary>\n\n```\n", "```\n</details>\n"


def first_line(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def file_tree() -> str:
    """Folders in alphabetical order, the single modules first; files without a docstring (empty __init__) are left out."""
    lines = []
    for folder in [SOURCE, *sorted(path for path in SOURCE.rglob("*") if path.is_dir())]:
        modules = [module for module in sorted(folder.glob("*.py")) if first_line(module)]
        if folder != SOURCE and modules:
            lines.append(f"{folder.relative_to(SOURCE)}/")
        indent = "" if folder == SOURCE else "  "
        lines += [f"{indent}{module.name:<19} {first_line(module)}" for module in modules]
    return "\n".join(lines) + "\n"


def listed() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def test_the_readme_lists_every_module_with_the_first_line_of_its_docstring():
    assert listed() == file_tree(), "run: python tests/test_readme.py"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace(BEGIN + listed() + END, BEGIN + file_tree() + END), encoding="utf-8")
