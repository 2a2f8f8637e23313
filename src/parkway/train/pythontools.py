"""Command-line tools of Python's standard library, described by the first sentence of their own documentation."""

import ast
import sysconfig
from pathlib import Path

from parkway.train.corpus import Example, clean_about

# module | task | line. The words are this project's; `about` is read from the installed library (PSF licence).
_TABLE = """
json.tool | Pretty-print a JSON file with Python | python3 -m json.tool path/to/file.json
http.server | Serve a directory over HTTP with Python | python3 -m http.server 8000 --directory path/to/directory
venv | Create a Python virtual environment | python3 -m venv path/to/environment
timeit | Measure how long a Python statement takes | python3 -m timeit "statement"
cProfile | Profile a Python script, sorted by cumulative time | python3 -m cProfile -s cumulative path/to/script.py
pdb | Debug a Python script | python3 -m pdb path/to/script.py
unittest | Find and run the unit tests of a directory with Python | python3 -m unittest discover path/to/directory
doctest | Run the examples in the docstrings of a Python module | python3 -m doctest path/to/module.py
compileall | Compile all Python files of a directory to bytecode | python3 -m compileall path/to/directory
py_compile | Compile a Python file to bytecode | python3 -m py_compile path/to/file.py
zipfile | Create a zip archive with Python | python3 -m zipfile -c archive.zip path/to/file
tarfile | Extract a tar archive with Python | python3 -m tarfile -e path/to/archive.tar path/to/directory
gzip | Compress a file with Python | python3 -m gzip path/to/file
base64 | Encode a file in Base64 with Python | python3 -m base64 -e path/to/file
calendar | Print the calendar of a month with Python | python3 -m calendar 2026 1
dis | Disassemble a Python file | python3 -m dis path/to/file.py
ast | Print the syntax tree of a Python file | python3 -m ast path/to/file.py
tokenize | Print the tokens of a Python file | python3 -m tokenize path/to/file.py
trace | Trace the lines that a Python script executes | python3 -m trace --trace path/to/script.py
pydoc | Show the documentation of a Python module | python3 -m pydoc module
zipapp | Make an executable archive of a Python program | python3 -m zipapp path/to/directory -o program.pyz
ensurepip | Install pip into a Python installation | python3 -m ensurepip --upgrade
webbrowser | Open an address in the web browser with Python | python3 -m webbrowser https://example.com
site | Show where Python looks for modules | python3 -m site
sysconfig | Show how Python was configured and built | python3 -m sysconfig
platform | Print the platform that Python runs on | python3 -m platform
inspect | Print the source code of a Python module | python3 -m inspect module
tabnanny | Find ambiguous indentation in a Python file | python3 -m tabnanny path/to/file.py
pickletools | Disassemble a pickle file | python3 -m pickletools path/to/file.pickle
mimetypes | Guess the MIME type of a file with Python | python3 -m mimetypes path/to/file
modulefinder | List the modules that a Python script imports | python3 -m modulefinder path/to/script.py
pyclbr | List the classes and functions of a Python file | python3 -m pyclbr path/to/file.py
"""


def python_tools() -> list[Example]:
    """The tools of the table that the running Python ships with a documented source file."""
    library = Path(sysconfig.get_path("stdlib"))
    found: list[Example] = []
    for row in _TABLE.strip().splitlines():
        module, task, line = row.split(" | ")
        about = _first_sentence(library / Path(*module.split(".")))
        if about:
            found.append(Example(f"python3 -m {module}", about, task, line))
    return found


def _first_sentence(stem: Path) -> str:
    """The first sentence of a module's docstring, read without importing the module; empty where there is none."""
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            return clean_about(text.split("\n\n")[0])
    return ""
