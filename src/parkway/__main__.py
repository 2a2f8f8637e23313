"""`python -m parkway`: the same program as the `parkway` command."""

from parkway.cli.main import main

if __name__ == "__main__":
    main()
