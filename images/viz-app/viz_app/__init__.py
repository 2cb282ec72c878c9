"""One application of a desktop, seen and used in a browser: Xvnc, a window manager, websockify, the application."""
