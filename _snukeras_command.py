"""The commands `snukeras-export` and `snukeras-zoo`; pip makes a script of each function.

This module stands beside the package, because a script has to say what it is before its first
`import snukeras`: the package then imports none of its modules until they are used, so `--help`
answers without the seconds that TensorFlow takes to load. Any other program gets all of them at
once, whatever its own name.
"""


def export() -> int:
    """Run `snukeras-export` and return its exit code."""
    from snukeras.export.command import main

    return main()


def zoo() -> int:
    """Run `snukeras-zoo` and return its exit code."""
    from snukeras.zoo.command import main

    return main()
