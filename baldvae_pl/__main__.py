"""`python -m baldvae_pl` is the `baldvae` command."""

from baldvae_pl.main import main

if __name__ == "__main__":
    main()
