"""Which files a user means by a path: a file, all of a folder, or those that a kustomization lists."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from servicekit.errors import ConfigurationError

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


def read(path: Path, inside: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yields each file with its text. Of a kustomization only `resources` counts.

    Args:
        path: A file or a folder.
        inside: The folders whose kustomizations lead here.

    Raises:
        ConfigurationError: A file cannot be read, a folder has none, or a kustomization leads to itself.
    """
    if path.resolve() in inside:
        raise ConfigurationError(f"{path}: its kustomization leads to itself by its `resources`")
    if not path.is_dir():
        yield path, _text(path)
        return
    kustomization = next((path / name for name in _KUSTOMIZATIONS if (path / name).is_file()), None)
    if kustomization is not None:
        files = [path / name for name in _resources(kustomization)]
    else:
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files:
        raise ConfigurationError(f"{path}: has no YAML files: name a file, or another folder")
    for file in files:
        yield from read(file, (*inside, path.resolve()))


def _resources(kustomization: Path) -> list[str]:
    try:
        resources = yaml.safe_load(_text(kustomization))["resources"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{kustomization}: has no list of `resources`: {' '.join(str(error).split())}"
        ) from error
    return [str(each) for each in resources or ()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"{path}: cannot be read: {reason}") from error
