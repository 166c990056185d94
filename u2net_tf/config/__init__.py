"""All settings, each defined once: name, type, default, range and help.

Each group of settings is a frozen model (`base.Config`). The model of a command
combines groups, and `command_flags` derives the command's flags from it.
"""
