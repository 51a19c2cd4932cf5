"""Build hook: puts what the repository keeps once, outside this folder, into the package.

A checkout has the default bundle, the licence and the notice one level up. They go into the
sdist and the wheel as package data; an sdist unpacked elsewhere already has them inside.
Editable installs read them from the checkout, so nothing is copied.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: File that a folder needs to be a bundle.
MANIFEST = "bundle.json"


class RepositoryData(BuildHookInterface):
    """Adds the default bundle and the licence texts to wheel and sdist."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to include; ``version`` is "editable" or "standard"."""
        if version == "editable":
            return
        repository = Path(self.root).parent
        bundle = repository / "models" / "compact"
        included = build_data["force_include"]
        if (bundle / MANIFEST).is_file():
            included[str(bundle)] = "angelo/models/compact"
        elif not (Path(self.root) / "angelo" / "models" / "compact" / MANIFEST).is_file():
            self.app.display_warning(
                f"no default bundle at {bundle}: this package will need --bundle to run"
            )
        for name in ("LICENSE", "NOTICE"):
            if (repository / name).is_file():
                included[str(repository / name)] = f"angelo/{name}"
