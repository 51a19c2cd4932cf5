"""Command line: parse, call, report. No science here."""

from pathlib import Path
from typing import Annotated

import typer

from angelo.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line; the entry point of the package."""
    app()


@app.callback()
def main() -> None:
    """Write bundles (docs/bundle.md) from trained weights."""


@app.command()
def compact(
    weights: Annotated[
        Path, typer.Option(help="Folder with c_alpha.pt, language.pt and gnn.pt.")
    ],
    settings: Annotated[Path, typer.Option(help="What is chosen rather than trained, JSON.")],
    spectrum: Annotated[
        Path, typer.Option(help="Amplitude profile that the networks are trained on, JSON.")
    ],
    out: Annotated[Path, typer.Option(help="Bundle folder; its other files stay.")],
    accuracy: Annotated[
        Path | None, typer.Option(help="Measured accuracy, JSON, for the manifest.")
    ] = None,
) -> None:
    """Write the compact bundle: ONNX graphs compared with torch, manifest, checksums."""
    # Not at the top: help and usage errors need not wait for torch to load.
    from angelo_export.bundle import write_compact_bundle
    from angelo_export.settings import read_json, read_settings

    try:
        manifest = write_compact_bundle(
            weights,
            read_settings(settings),
            read_json(spectrum),
            out,
            None if accuracy is None else read_json(accuracy),
        )
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    size = sum(record["bytes"] for record in manifest["files"].values())
    worst = max(manifest["parity"].values())
    typer.echo(
        f"{out}: {len(manifest['files'])} graphs, {size / 1e6:.1f} MB, "
        f"at most {worst:.1e} from torch"
    )


if __name__ == "__main__":
    run()
