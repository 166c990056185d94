"""Every setting, once: its name, type, default, range and help.

Each group of settings is a frozen model (`base.Config`); each command has a model that
combines groups. `command_flags` derives the command's flags from it.
"""
