"""Programs that pages show whole: `<!-- file PATH -->` above a block says which file of the repository it is.

python tests/docs/shown_files.py        # writes the files into the pages
"""

from __future__ import annotations

import re

from tests.docs.pages import PAGES, ROOT

_SHOWN = re.compile(r"^(<!-- file (\S+) -->\n```python\n).*?(^```$)", re.MULTILINE | re.DOTALL)


def replace_files(page: str) -> str:
    """The page with each file as it is now."""
    return _SHOWN.sub(lambda found: found[1] + (ROOT / found[2]).read_text("utf-8") + found[3], page)


if __name__ == "__main__":
    for path in PAGES:
        text = path.read_text("utf-8")
        if text != (replaced := replace_files(text)):
            path.write_text(replaced, "utf-8")
