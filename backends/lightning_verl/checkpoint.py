"""Checkpoints of a run on VERL: the model in Hugging Face format, and VERL's own shards in a subfolder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from lightning_process import mark
from lightning_process.anatomy import Anatomy
from lightning_sdk.errors import ModelError
from lightning_verl.memory import trained_parameters, weight_bytes

#: What VERL saves: everything that `--resume` needs, or the model alone.
RESUMABLE = ("model", "optimizer", "extra", "hf_model")
MODEL_ALONE = ("hf_model",)
#: Subfolder of a checkpoint with VERL's shards and optimizer.
SHARDS = "verl"


class VerlCheckpoint(NamedTuple):
    version: int
    steps: int


def finish(folder: Path, done: VerlCheckpoint) -> None:
    """Mark a checkpoint as complete."""
    draft = folder / f".{mark.NAME}"
    draft.write_text(mark.text("verl", **done._asdict()))
    draft.replace(folder / mark.NAME)


def read(folder: Path) -> VerlCheckpoint:
    """What the mark says. ModelError if a run cannot go on from here: this is not a complete checkpoint of the VERL
    backend, or it holds the model alone."""
    values = mark.read(folder, "verl", version=int, steps=int)
    if not any((folder / SHARDS).glob("model_*.pt")):
        raise ModelError(
            f"checkpoint {folder} holds the model alone, without the optimizer that --resume needs: the run had "
            f"actor_rollout_ref.actor.checkpoint.save_contents=[{', '.join(MODEL_ALONE)}]; start a new run from it "
            f"with --model {folder}"
        )
    return VerlCheckpoint(values["version"], values["steps"])


def checkpoint_bytes(config: DictConfig, anatomy: Anatomy) -> float:
    """Size of a checkpoint on the disk of the run's folder, which all machines of a cluster write to.

    VERL writes the model with the precision of its weights.
    """
    saved, model = config.actor_rollout_ref.actor.checkpoint.save_contents, config.actor_rollout_ref.model
    each = weight_bytes(config)
    weights, moments = each * anatomy.parameters, 2 * each * trained_parameters(anatomy, model.lora_rank)
    return ("hf_model" in saved) * weights + ("model" in saved) * weights + ("optimizer" in saved) * moments
