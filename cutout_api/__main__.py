"""``python -m cutout_api``."""

import sys

from .cli import main

sys.exit(main())
