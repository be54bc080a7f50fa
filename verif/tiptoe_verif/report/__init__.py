"""A run to look at in a browser: `tiptoe report`, and `tiptoe live --web`."""
