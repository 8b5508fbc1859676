"""One use case a function, on ports."""
