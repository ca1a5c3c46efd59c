"""The tools that make variants, each run in a child process of its own (`run_tool`).

A tool is a function `make(task)` that reads `task.model` and `task.calibration` and writes
`task.out`. Nothing else of this program imports them: their packages are large, and optional.
"""
