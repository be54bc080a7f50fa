"""Driver model of the engine after FreeBSD's toe_usrreqs."""
