"""A ChimeraX script that opens the map and the models, coloured by confidence."""

import os
from collections.abc import Sequence
from pathlib import Path

#: Contour level, standard deviations of the map.
CONTOUR_SD = 5
#: Colours of the confidence scale, 0 to 100.
PALETTE = "0,#c22f2f:50,#e8c33c:70,#7fc1e0:90,#1f4fbf"


def chimerax_script(folder: Path, map_path: Path, models: Sequence[str]) -> str:
    """Commands for ``folder``'s script: the map as #1, the models from #2 on.

    Parameters
    ----------
    folder
        Where the script will lie; ChimeraX reads paths relative to it.
    map_path
        The map; referred to by a relative path, so that both can be moved together.
    models
        File names in ``folder``. The first is shown, the others are hidden.
    """
    lines = [f"open {_quoted(_relative(map_path, folder))}"]
    lines += [f"open {_quoted(name)}" for name in models]
    lines += [f"volume #1 sdLevel {CONTOUR_SD} transparency 0.6 color gray"]
    if models:
        shown = f"#2-{len(models) + 1}" if len(models) > 1 else "#2"
        lines += [
            f"cartoon {shown}",
            f"hide {shown} atoms",
            "# B-factors hold the confidence of each residue, 0 to 100; high is good",
            f"color byattribute bfactor {shown} palette {PALETTE}",
        ]
    lines += [f"hide #{number} models" for number in range(3, len(models) + 2)]
    return "\n".join([*lines, "view", ""])


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _quoted(path: str) -> str:
    return f"'{path}'" if '"' in path else f'"{path}"'
