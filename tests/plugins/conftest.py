from support.plugin_packages import packages

__all__ = ["packages"]
