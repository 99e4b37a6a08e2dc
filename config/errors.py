"""What loading settings may raise."""


class SettingsError(Exception):
    """A setting is unknown or refused; the message is one line that names it, where it was set and what to do."""
