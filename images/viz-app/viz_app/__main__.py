"""viz-app [ARGUMENT...]: run an application on a display of its own until it ends.

From the environment: APP, the application, gedit; VNC_PORT, where websockify listens, 6080; GEOMETRY, 1280x800;
VNC_PASSWORD_FILE, a file that only its owner can read, else a password is made and told on the terminal;
VNC_READY_FILE, written once the session can be reached. Arguments are the application's, a file to open for example.
"""

from __future__ import annotations

import os
import sys

from viz_app.problem import Problem
from viz_app.session import end_on_signals, run
from viz_app.settings import Settings


def main() -> int:
    """Run the session that arguments and environment ask for; its exit status."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.stdout.write(__doc__ or "")
        return 0
    end_on_signals()
    try:
        return run(Settings.load(os.environ), sys.argv[1:], os.environ)
    except Problem as problem:
        sys.stderr.write(f"viz-app: {problem}\n")
        return problem.status


if __name__ == "__main__":
    sys.exit(main())
