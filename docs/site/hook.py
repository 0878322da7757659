"""What the documentation site needs beyond MkDocs: equations, and the repository's files that pages link to.

Pages are also read in the repository, where they may link to any file, such as `../examples/minimal/agent.py`. The site
only has what is in `docs/`, so each linked file is added to it, and the link is changed to lead there.
"""

from __future__ import annotations

import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Pages of the repository's root that are pages of the site as well.
_ROOT_PAGES = {
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "README.md": "index.md",
}
#: Shown as pages; other files are copied.
_LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".log": "text"}
_FENCE = re.compile(r"^( *)(```+)[^`\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
#: What a browser would ask another host for. Links that a reader may follow are none of it.
_REQUESTS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)=["']?(?:https?:)?//[^"'> ]+
    |<link\b(?![^>]*\brel=["']?canonical)[^>]*?\bhref=["']?(?:https?:)?//[^"'> ]+
    |url\(["']?(?:https?:)?//[^)]+|@import\s+["'](?:https?:)?//[^"']+""",
    re.VERBOSE,
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Blocks of the language `math` become MathML, which browsers show without a script."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": _format_math})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and every file outside docs/ that a page links to."""
    pages = [Path(each.abs_src_path) for each in files.documentation_pages() if each.abs_src_path]
    for source, place in _ROOT_PAGES.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=_rewrite(source)))
            pages.append(source)
    wanted = {target for page in pages for target in _outside(page)}
    while wanted:
        target = wanted.pop()
        if files.get_file_from_path(_place(target)) is None:
            files.append(_file_of(target, config))
            wanted |= set(_children(target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside docs/ lead to their place in the site."""
    source = page.file.abs_src_path
    return markdown if source is None else _rewrite(Path(source))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the search for screen readers, which the theme does not."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that asks another host for anything: it is read offline, and nobody learns who reads it."""
    found = [
        f"{path.relative_to(config.site_dir)}: {request[0]}"
        for path in sorted(Path(config.site_dir).rglob("*"))
        if path.suffix in {".html", ".css", ".svg"}
        for request in _REQUESTS.finditer(path.read_text("utf-8"))
    ]
    if found:
        raise PluginError("The site would ask other hosts for:\n" + "\n".join(found))


def _format_math(source: str, *_: Any, **__: Any) -> str:
    math = convert(source.strip(), display="block")
    return f'<div class="math" tabindex="0" role="group" aria-label="{escape(" ".join(source.split()))}">{math}</div>'


def _outside(page: Path) -> list[Path]:
    """Files and folders outside docs/ that this page links to, except for the pages of the root."""
    targets = [(page.parent / link[2]).resolve() for link in _LINK.finditer(_FENCE.sub("", page.read_text("utf-8")))]
    return [target for target in targets if target.exists() and _is_outside(target)]


def _is_outside(target: Path) -> bool:
    return target.is_relative_to(ROOT) and not target.is_relative_to(DOCS) and target not in _ROOT_PAGES


def _place(target: Path) -> str:
    """Where a file or folder of the repository is in the site."""
    if target in _ROOT_PAGES:
        return _ROOT_PAGES[target]
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    place = (Path("repository") / target.relative_to(ROOT)).as_posix()
    if target.is_dir():
        return f"{place}/index.md"
    return f"{place}.md" if target.suffix in _LANGUAGES or target.suffix == "" else place


def _children(target: Path) -> list[Path]:
    """What the page of a folder lists."""
    if not target.is_dir():
        return []
    return [each for each in sorted(target.iterdir()) if each.name != "__pycache__" and not each.name.startswith(".")]


def _file_of(target: Path, config: MkDocsConfig) -> File:
    place, name = _place(target), target.relative_to(ROOT).as_posix()
    if target.suffix == ".md" or not place.endswith(".md"):
        return File.generated(config, place, abs_src_path=str(target), inclusion=InclusionLevel.NOT_IN_NAV)
    if target.is_dir():
        body = "\n".join(f"- [{each.name}]({_relative(_place(each), place)})" for each in _children(target))
    else:
        body = f"````{_LANGUAGES.get(target.suffix, 'text')}\n{target.read_text('utf-8')}\n````"
    text = f"---\ntitle: {name}\nsearch:\n  exclude: true\n---\n\n# `{name}`\n\n{body}\n"
    return File.generated(config, place, content=text, inclusion=InclusionLevel.NOT_IN_NAV)


def _relative(place: str, page: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")


def _rewrite(source: Path) -> str:
    """The text of a page, with the links that the site needs."""

    def replace(link: re.Match[str]) -> str:
        target = (source.parent / link[2]).resolve()
        if "://" in link[2] or not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        return link[1] + _relative(_place(target), _place(source)) + link[3]

    text, parts, end = source.read_text("utf-8"), [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(replace, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replace, text[end:])])
