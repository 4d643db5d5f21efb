"""`python -m fancli`, the same as `fan`."""

import sys

from fancli.main import main

sys.exit(main())
