"""Benchmarks: suites (the problems), timing, roofline (the machine's ceilings), a file for each kind of suite, run, report."""
