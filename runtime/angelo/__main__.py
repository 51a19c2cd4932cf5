"""The command line as ``python -m angelo``."""

from angelo.cli import run

if __name__ == "__main__":
    run()
