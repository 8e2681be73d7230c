"""`python -m session_mesh`, where the script is not installed."""

import sys

from session_mesh.main import main

sys.exit(main())
