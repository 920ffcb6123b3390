"""Statistics of evidence: intervals, tests, power, ranks and fronts; functions of arrays that know no file."""
