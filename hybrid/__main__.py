"""`python -m hybrid` is the `hybrid` command."""

from hybrid.cli.main import run

if __name__ == "__main__":
    run()
