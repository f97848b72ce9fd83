"""What can be known before a run starts? Whatever would else fail it after hours, in one line."""

import math
from collections.abc import Collection
from pathlib import Path

from hybridlib import data, files, hub, models, rewards, weights
from hybridlib.methods import METHODS, train
from hybridlib.profiles import Profile, model_folder
from hybridlib.runs import Run

PROBED = 2  # rows of each set that the rewards are tried on


def check(runs: Collection[Run], profile: Profile) -> None:
    """Check what these runs need: numbers that make sense, places to write, model, rows, rewards.

    Reads the weights of a model that lies on this machine, to see that they are numbers.

    Raises:
        StudyError: in one line what is wrong, and with which option, folder, file, row or reward.
    """
    for run in runs:
        if METHODS[run.method].trainer:
            train.options(run, profile, Path())  # raises where one makes no sense
    check_folders(profile)
    check_model(profile, {run.adapter for run in runs if METHODS[run.method].trainer})
    check_reachable(profile)
    check_rows(runs, profile)
    check_batches(runs, profile)
    check_rewards(runs, profile)


def check_folders(profile: Profile) -> None:
    """Raise StudyError where results or adapters cannot be written."""
    for folder in (files.results_folder(profile.name), files.runs_folder(profile.name)):
        files.check_writable(folder)


def check_model(profile: Profile, adapters: Collection[str] = ()) -> None:
    """Raise StudyError where a model on this machine is damaged, or cannot be trained.

    Args:
        adapters: names of those that it will be trained with.
    """
    if folder := model_folder(profile.model):
        weights.check_model(folder)
        models.check(profile, sorted(adapters))
        weights.check_finite(weights.model_files(folder))


def check_reachable(profile: Profile) -> None:
    """Raise StudyError where the model is neither on this machine nor to be had from the hub."""
    if not model_folder(profile.model):
        hub.check_model(profile.model, profile.revision)


def check_rows(runs: Collection[Run], profile: Profile) -> None:
    """Raise StudyError where rows that will be trained on or held out cannot be had.

    Sets that are generated have all their rows.
    """
    splits = {split.partition("@")[0] for run in runs for split in (*profile.splits, *run.also)}
    if any("rows" in METHODS[run.method].needs for run in runs):
        splits.add("train")
    for name in profile.datasets:
        if not data.is_generated(name):
            for split in sorted(splits):
                limit = profile.n_train if split == "train" else profile.n_eval
                data.load(name, split, limit, profile.columns, profile.ask)


def check_batches(runs: Collection[Run], profile: Profile) -> None:
    """Raise StudyError where all training rows together are fewer than one batch of GRPO."""
    sizes: dict[tuple[str, int], float] = {}
    for run in runs:
        if METHODS[run.method].trainer != "grpo" or run.select:
            continue
        limit = run.n_train or profile.n_train
        for name in run.on or profile.datasets:
            if data.is_generated(name):
                sizes[name, limit] = limit or math.inf
            elif (name, limit) not in sizes:
                sizes[name, limit] = len(data.load(name, "train", limit, profile.columns))
        n_rows = sum(sizes[name, limit] for name in run.on or profile.datasets)
        train.check_batch(run, profile, n_rows)


def check_rewards(runs: Collection[Run], profile: Profile) -> None:
    """Try the rewards of these runs on a few rows, but for those that ask a model.

    Raises:
        StudyError: names the reward that fails, returns no number for each completion, or applies
            to no row.
    """
    names = {
        name: None
        for run in runs
        if METHODS[run.method].trainer == "grpo"
        for name in run.rewards
        if not {*getattr(rewards.REWARDS[name], "needs", ())} - {"limit"}
    }
    if names:
        parts = [
            data.load(name, "train", PROBED, profile.columns, profile.ask)
            for name in profile.datasets
        ]
        rows = [row for part in parts for row in part]
        rewards.probe(list(names), rows, profile.max_completion_tokens)
