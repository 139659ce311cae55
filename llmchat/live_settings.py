"""Settings that can change during a chat: sampling and the context window."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from llmchat.engines import Sampling
from llmchat.errors import UsageError
from llmchat.presets import Preset, adjust, setting_names, settings_of


class LiveSettings:
    """A preset and a sampling that a user can change.

    `settings` holds what was changed, `defaults` the values without the changes. Both are plain
    values by the names of presets.setting_names.
    """

    preset: Preset
    sampling: Sampling
    settings: dict[str, Any]
    defaults: dict[str, Any]
    docs: tuple[str, ...] = ()
    """The indexes that front ends search; stored with the settings."""
    role: str = ""
    """The role that front ends ask in, with its values; stored with the settings."""

    def search_docs(self, names: Sequence[str]) -> None:
        """Store with the session which indexes are searched."""
        if self.docs != tuple(names):
            self.docs = tuple(names)
            self._settings_changed()

    def use_role(self, spec: str) -> None:
        """Store with the session which role is used; "" for none."""
        if self.role != spec:
            self.role = spec
            self._settings_changed()

    @property
    def stored_settings(self) -> dict[str, Any]:
        """What a session keeps of the settings."""
        of_front_ends = {"docs": list(self.docs), "role": self.role}
        return self.settings | {name: value for name, value in of_front_ends.items() if value}

    def use_preset(self, preset: Preset, sampling: Sampling) -> None:
        """Start from this preset and sampling, without changes."""
        self.preset, self.sampling, self.settings = preset, sampling, {}
        self.defaults = settings_of(sampling, preset.context)

    def set(self, values: Mapping[str, Any]) -> None:
        """Change settings for the following answers. Raises UsageError for an invalid value."""
        self._adjust(values)
        self._settings_changed()

    def unset(self, name: str) -> None:
        """Reset one setting to its default."""
        self._adjust({name: self.defaults[name]})
        del self.settings[name]
        self._settings_changed()

    def restore_settings(self, values: Mapping[str, Any]) -> None:
        """Apply the settings that a session stored, except values that are no longer valid."""
        for name, value in values.items():
            with suppress(UsageError):
                if name in setting_names():
                    self._adjust({name: value})

    def reset_settings(self) -> None:
        """Reset every setting to its default."""
        self._adjust(self.defaults)
        self.settings = {}

    def _settings_changed(self) -> None:
        """Called after the user changed a setting."""

    def _adjust(self, values: Mapping[str, Any]) -> None:
        self.preset, self.sampling = adjust(self.preset, self.sampling, values)
        current = settings_of(self.sampling, self.preset.context)
        self.settings = self.settings | {name: current[name] for name in values}
