"""Settings that change in the middle of a chat: sampling and the window."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets import Preset, adjust, setting_names, settings_of


class Adjustable:
    """A preset and a sampling that can be changed by hand.

    `settings` holds what was changed, `defaults` what holds without it. Both are plain values by the names of presets.setting_names.
    """

    preset: Preset
    sampling: Sampling
    settings: dict[str, Any]
    defaults: dict[str, Any]

    def begin_with(self, preset: Preset, sampling: Sampling) -> None:
        """Start from these; nothing has been changed yet."""
        self.preset, self.sampling, self.settings = preset, sampling, {}
        self.defaults = settings_of(sampling, preset.context)

    def set(self, values: Mapping[str, Any]) -> None:
        """Change settings for the answers to come. Raises UsageError for an impossible value."""
        self._adjust(values)
        self._settings_changed()

    def unset(self, name: str) -> None:
        """Give a setting its default back."""
        self._adjust({name: self.defaults[name]})
        del self.settings[name]
        self._settings_changed()

    def take_settings(self, values: Mapping[str, Any]) -> None:
        """Take up what a session kept; a value that is no longer possible is left out."""
        for name, value in values.items():
            with suppress(UsageError):
                if name in setting_names():
                    self._adjust({name: value})

    def reset_settings(self) -> None:
        """Give every setting its default back."""
        self._adjust(self.defaults)
        self.settings = {}

    def _settings_changed(self) -> None:
        """Called after a change by hand."""

    def _adjust(self, values: Mapping[str, Any]) -> None:
        self.preset, self.sampling = adjust(self.preset, self.sampling, values)
        known = settings_of(self.sampling, self.preset.context)
        self.settings = self.settings | {name: known[name] for name in values}
