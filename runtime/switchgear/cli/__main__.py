"""`python -m switchgear.cli` is the same as `switchgear`."""

from switchgear.cli import main

main()
