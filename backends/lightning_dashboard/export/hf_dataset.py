"""A dataset of Hugging Face's `datasets`, which `load_from_disk` opens: the tables under their names."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lightning_dashboard.export.output import WrittenOutput
from lightning_dashboard.export.packages import require_package
from lightning_dashboard.export.parquet import open_parquet
from lightning_dashboard.export.records import ExportedRollout
from lightning_dashboard.export.tables import TABLES
from lightning_sdk.errors import SettingError
from lightning_sdk.system.folders import make_folder

OPTION = "--hf-dataset"


class DatasetFolder:
    """Gathers the tables as Parquet next to the folder, and lets `datasets` write them when all are there."""

    def __init__(self, folder: Path, role: str) -> None:
        """SettingError if the folder is not empty, or without the package."""
        self._datasets = require_package("datasets", OPTION)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SettingError(f"{OPTION} {folder}: expected a new or an empty folder")
        self._folder = folder
        make_folder(folder.parent, f"{OPTION} FOLDER")
        self._draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        self._tables = open_parquet(self._draft / "tables", role, OPTION)

    def add(self, exported: ExportedRollout) -> None:
        self._tables.add(exported)

    def finish(self) -> WrittenOutput:
        written = self._tables.finish()
        self._datasets.disable_progress_bars()
        cache = str(self._draft / "cache")
        found = {
            table: self._datasets.Dataset.from_parquet(str(written.path / f"{table}.parquet"), cache_dir=cache)
            for table in TABLES
        }
        self._datasets.DatasetDict(found).save_to_disk(str(self._draft / "dataset"))
        if self._folder.exists():
            self._folder.rmdir()
        (self._draft / "dataset").rename(self._folder)
        size = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        return WrittenOutput(self._folder, written.counts, size)

    def discard(self) -> None:
        """Also what was gathered, when it is finished."""
        self._tables.discard()
        shutil.rmtree(self._draft, ignore_errors=True)
