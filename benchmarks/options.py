"""Options that benchmarks share: what they mean, and what they are if nothing is said."""

from pathlib import Path
from typing import Annotated

import typer

Bundle = Annotated[Path, typer.Option(help="Folder of the bundle.")]
Structures = Annotated[Path, typer.Option(help="Packed structures.")]
Maps = Annotated[Path, typer.Option(help="Folder of real_maps.json's files.")]
MaybeMaps = Annotated[
    Path | None, typer.Option(help="Folder of real_maps.json's files; none: no real maps.")
]
Entries = Annotated[int, typer.Option(min=1, help="Simulated entries.")]
Resolutions = Annotated[str, typer.Option(help="Of simulated maps, Å.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="Weight file of a C-alpha network to measure in the bundle's place."),
]
Device = Annotated[str, typer.Option(help="Where the networks run.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")]
Machine = Annotated[str, typer.Option(help="What people call this machine.")]

#: How many simulated entries, if nothing is said (``ENTRIES`` of the Makefile).
N_ENTRIES = 6
BUNDLE, STRUCTURES, MAPS = (
    Path("models/compact"),
    Path("data/structures.npz"),
    Path("data/maps"),
)
