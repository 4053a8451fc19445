"""The app for any ASGI server: `uvicorn cauce.asgi:app`. Configured like `cauce serve`, by `cauce.toml` and the environment."""

import os
from pathlib import Path

from cauce.bootstrap import application
from cauce.config import load
from cauce.server.door import raise_limit

raise_limit()
app = application(load(None, os.environ, Path.cwd()))
