"""The door of `python -m rawws`."""

import sys

from rawws.cli import main

sys.exit(main())
