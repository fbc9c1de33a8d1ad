"""The entry of `python -m rawws`."""

import sys

from .cli.main import main

sys.exit(main())
