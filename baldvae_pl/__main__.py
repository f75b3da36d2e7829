"""`python -m baldvae_pl` is the `baldvae` command."""

import os
import sys

if __name__ == "__main__":
    if sys.path[0] == os.getcwd():  # noqa: PTH109 (pathlib would import a user's `random.py` here)
        del sys.path[0]  # it comes last, as with `baldvae`
    from baldvae_pl.main import main

    main()
