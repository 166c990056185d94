"""Every setting, once: its name, type, default, range and help.

A group of settings is a frozen model (`base.Config`); what a command is told is one
made of groups. `command_flags` derives the command's flags from it.
"""
