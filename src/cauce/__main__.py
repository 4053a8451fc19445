"""`python -m cauce`."""

import sys

from cauce.cli.main import main

sys.exit(main())
