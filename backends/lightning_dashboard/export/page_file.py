"""The page as one file: its modules, styles and data in one document that needs no server and asks for nothing.

A browser loads no module from a file, so the modules become functions of one inline script. The document's policy names
that script and the styles by their hashes: nothing else that may come to stand in it is ever run.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from lightning_dashboard.server import find_file, to_json

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"([^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)
#: At the end of what a bundler wrote.
_EXPORT_LIST = re.compile(r"\bexport\s*\{([^}]*)\};?\s*$")
_STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)">')
_SCRIPT = re.compile(r'<script type="module" src="([^"]+)"></script>')
_ICON = re.compile(r'(<link rel="icon" href=")([^"]+)(">)')
_CHARSET = '<meta charset="utf-8">'
#: What could end the element that holds the data, or the line of a script, and what is no character alone.
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def build_page(data: Any) -> bytes:
    """The document with these data inside."""
    page = _read("index.html")
    styles = [_read(name) for name in _STYLE.findall(page)]
    (entry,) = _SCRIPT.findall(page)
    script = _bundle(entry)
    for text in (script, *styles):
        if re.search("</script|</style|<!--", text, re.IGNORECASE):
            raise ValueError("a file of the page has a text that would end its element")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {' '.join(map(_hash, styles))}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'{_CHARSET}\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += '<meta name="referrer" content="no-referrer">'
    rest = iter(styles)
    page = page.replace(_CHARSET, head, 1)
    page = _STYLE.sub(lambda _: f"<style>{next(rest)}</style>", page)
    page = _ICON.sub(lambda found: found[1] + _data_address(found[2]) + found[3], page)
    page = _SCRIPT.sub("", page)
    inside = f'<script type="application/json" id="data">{escape_json(to_json(data, ascii=False))}</script>'
    return page.replace("</body>", f'{inside}\n<script type="module">{script}</script>\n</body>', 1).encode()


def escape_json(text: str) -> str:
    """The same JSON without a character that means something in HTML, or is none in UTF-8."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _bundle(entry: str) -> str:
    """One script that does what the module does, with all that it imports."""
    order: list[str] = []
    _visit(entry, order)
    names = {name: f"module{number}" for number, name in enumerate(order)}
    return "\n".join(_as_function(name, names) for name in order)


def _visit(name: str, order: list[str]) -> None:
    """Append the module behind those that it imports, which must not go round."""
    if name not in order:
        for below in _imports(name):
            _visit(below, order)
        order.append(name)


def _imports(name: str) -> Iterator[str]:
    for found in _IMPORT.finditer(_read(name)):
        yield _resolve(name, found[2])


def _as_function(name: str, names: dict[str, str]) -> str:
    text = _read(name)
    exported = [found[2] for found in _EXPORT.finditer(text)]
    if (found := _EXPORT_LIST.search(text)) is not None:
        exported += [": ".join(reversed(each.split(" as "))) for each in found[1].split(",")]
        text = text[: found.start()]
    text = _IMPORT.sub(
        lambda each: f"const {{{each[1].replace(' as ', ': ')}}} = {names[_resolve(name, each[2])]};", text
    )
    text = _EXPORT.sub(r"\1 \2", text)
    if re.search(r"^(import|export)\b", text, re.MULTILINE):
        raise ValueError(f"{name} imports or exports in a form that cannot be put into one file")
    return f"const {names[name]} = (() => {{\n{text}\nreturn {{{', '.join(exported)}}};\n}})();"


def _resolve(name: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _read(name: str) -> str:
    found = find_file(name)
    if found is None:
        raise ValueError(f"the page has no file {name}")
    return found.decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data_address(name: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(_read(name).encode()).decode()}"
