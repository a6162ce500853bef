"""`python -m portable_sched`, and the command `portable-sched`."""

import sys


def main() -> int:
    """Run the command line; the answer is its exit code."""
    try:
        from portable_sched.cli import command_line  # noqa: PLC0415 - typer may not be there
    except ImportError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is nothing else to tell it with
        return 2
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
