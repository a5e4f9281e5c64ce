"""The story that `demo` tells on the `testbed`."""
