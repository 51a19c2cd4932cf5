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


@app.command("import-esm")
def import_esm_file(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="ESM.pt", help="fair-esm file of ESM-1b or an ESM-2."),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    half_precision: Annotated[
        bool, typer.Option("--half-precision", help="Halve the size; the loss is measured.")
    ] = False,
) -> None:
    """Write a bundle's sequence network from ESM weights: ONNX graph compared with torch."""
    from angelo_export.esm_checkpoints import import_esm

    try:
        export = import_esm(checkpoint, out, half=half_precision)
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    size = sum(path.stat().st_size for path in out.iterdir())
    lost = export.parity.get("half_precision_storage")
    typer.echo(
        f"{out}: {size / 1e6:.1f} MB, at most {max(export.parity.values()):.1e} from torch"
        + ("" if lost is None else f", of which half precision {lost:.1e}")
    )


@app.command("import-modelangelo")
def import_official(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Official bundle, its folder or zip.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to make.")],
    esm: Annotated[
        Path | None,
        typer.Option(help="fair-esm file, esm1b_t33_650M_UR50S.pt, if it uses sequences."),
    ] = None,
    half_precision: Annotated[
        bool, typer.Option("--half-precision", help="Halve the size; the loss is measured.")
    ] = False,
) -> None:
    """Write a bundle from ModelAngelo's own weights; docs/weights.md says where they are.

    A stopped import goes on behind its last finished file when the command is given again.
    """
    from angelo_export.import_modelangelo import import_modelangelo

    def tell(name: str, done: int, n: int) -> None:
        typer.echo(f"[{done + 1}/{n}] {name}", err=True)

    try:
        manifest = import_modelangelo(source, out, esm, half=half_precision, progress=tell)
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    size = sum(record["bytes"] for record in manifest["files"].values())
    parity = manifest["parity"]
    typer.echo(
        f"{out}: {len(manifest['files'])} files, {size / 1e6:.1f} MB, at most "
        f"{max(parity.values()):.1e} from torch"
    )


if __name__ == "__main__":
    run()
