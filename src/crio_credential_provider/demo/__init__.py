"""What `demo` tells: the story, and the stage that it is played on, made of the `testbed`."""
